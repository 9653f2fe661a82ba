"""Lines that libraries write past Python, straight to standard error."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def stderr_into(descriptor: int) -> Iterator[None]:
    """Whatever this process writes to standard error goes to ``descriptor``."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def stderr_without(*starts: str) -> Iterator[None]:
    """Drops lines of this process that begin with one of ``starts``; others follow."""
    dropped = tuple(start.encode() for start in starts)
    with tempfile.TemporaryFile() as written:
        try:
            with stderr_into(written.fileno()):
                yield
        finally:
            written.seek(0)
            lines = [line for line in written if not line.startswith(dropped)]
            os.write(2, b"".join(lines))
