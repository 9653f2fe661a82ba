"""Lines that libraries write past Python, straight to standard error."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def stderr_without(*starts: str) -> Iterator[None]:
    """Drops lines of this process that begin with one of ``starts``; others follow."""
    dropped = tuple(start.encode() for start in starts)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            lines = [line for line in written if not line.startswith(dropped)]
            os.write(2, b"".join(lines))
