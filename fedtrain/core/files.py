"""Files that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | str, *, mode: int = 0o666) -> None:
    """Writes ``content`` as ``written_atomically`` does."""
    with written_atomically(path, mode=mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_atomically(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place when the block has ended.

    It is synced, renamed, and the folder synced. A reader sees the old content or the
    new, never a part; a crash at any moment leaves one of the two, and so does an error
    in the block. ``mode``, less the umask, is who may read it: never more than that,
    not for a moment.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
