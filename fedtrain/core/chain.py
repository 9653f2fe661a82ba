"""Files that are only appended to: JSON lines, each with the hash of the one before it.

The privacy ledger and the partner's audit log are such files. A line that was changed,
taken out or put in is found by anyone who reads the file; one that was taken off the
end, by whoever remembers how long the file was.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedtrain.core.errors import LedgerError
from fedtrain.core.files import sync_folder

GENESIS = "0" * 64
_LOCK_TIMEOUT_S = 60.0


def digest(entry: Mapping[str, Any]) -> str:
    """SHA-256 of ``entry``'s plain values, in hexadecimal."""
    return hashlib.sha256(_plain(entry).encode()).hexdigest()


def sealed(entry: Mapping[str, Any], previous: str) -> dict[str, Any]:
    """``entry`` with the hash before it and its own."""
    chained = {**entry, "previous": previous}
    return {**chained, "hash": digest(chained)}


def checked_entry(line: bytes, previous: str | None) -> dict[str, Any] | None:
    """The entry of a line, or None if it is damaged or does not follow ``previous``."""
    try:
        entry = json.loads(line)
        given = entry.pop("hash")
        intact = given == digest(entry)
        follows = previous is None or entry["previous"] == previous
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return {**entry, "hash": given} if intact and follows else None


def append_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Appends a line for each entry in one write; waits until they are on the disk.

    Where the disk is full nothing is appended. Call it under ``locked``.

    Raises:
      LedgerError: If the file cannot be written to.
    """
    lines = "".join(f"{_plain(entry)}\n" for entry in entries).encode()
    with usable(path):
        is_new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _write_whole(handle, lines)
        finally:
            os.close(handle)
        if is_new:
            sync_folder(path.parent)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of the file at ``path``, whose folder is made.

    Raises:
      LedgerError: If another process keeps the lock, or the folder cannot be used.
    """
    lock = FileLock(f"{path}.lock", timeout=_LOCK_TIMEOUT_S)
    with usable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise LedgerError(
                f"{path} was locked by another run for {_LOCK_TIMEOUT_S:g} s; "
                "wait for it to end."
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turns what the operating system refuses into a LedgerError about ``path``."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be used: {error}. It needs a folder that can be written "
            "to; the ledgers of private data lie under FEDTRAIN_STATE_DIR."
        ) from error


def _write_whole(handle: int, lines: bytes) -> None:
    size = os.fstat(handle).st_size
    written = 0
    try:
        written = os.write(handle, lines)
    finally:
        if written < len(lines):
            os.ftruncate(handle, size)
    if written < len(lines):
        raise OSError("it could not be written to; is the disk full?")
    os.fsync(handle)


def _plain(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"))
