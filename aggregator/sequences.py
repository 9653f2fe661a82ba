"""The last sequence of each partner, kept across restarts: replays stay refused.

A line is appended at every call, before it is answered, so a killed process forgets
none. No call waits for the disk: after a power failure the last moments are missing,
and what the journal notes of contributions still holds.
"""

import logging
import os
import zlib
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.wire.signing import ReplayGuard

_MOST_LINES = 100_000
_LOG = logging.getLogger(__name__)


class SequenceFile:
    """Notes sequences in one file, which is made anew when it has grown long.

    Its ``note`` is for one caller at a time, as a ``ReplayGuard`` calls it.

    Args:
      path: Of the file; it need not exist.
      known: Sequences that others remember, such as the journal.

    Raises:
      ConfigError: If the file is there and cannot be read, or cannot be written.
    """

    def __init__(self, path: Path, known: Mapping[str, int]) -> None:
        self._path = path
        self._is_failing = self._is_torn = False
        self._inode = (0, 0)
        self.last = dict(known)
        try:
            for client_id, sequence in _read(path):
                self.last[client_id] = max(sequence, self.last.get(client_id, 0))
            self._file, self._num_lines = self._begun(), 0
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be used ({error.strerror}): it tells requests that "
                "were sent before from new ones. Give it back to this user."
            ) from error

    def note(self, client_id: str, sequence: int) -> None:
        """Appends one; a disk that is full does not stop honest rounds."""
        self.last[client_id] = sequence
        try:
            if self._is_replaced():
                self._begin_again()
            self._write(_line(client_id, sequence))
            self._num_lines += 1
            if self._num_lines > _MOST_LINES:
                self._begin_again()
            self._is_failing = False
        except (OSError, ValueError) as error:  # ValueError: it is closed
            if not self._is_failing:
                _LOG.warning("%s was not written: %s", self._path, error)
            self._is_failing = True

    def close(self) -> None:
        """Ends; nothing is left to write."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        """All of ``line``, on a line of its own, whatever was torn before."""
        left = b"\n" + line if self._is_torn else line
        self._is_torn = True
        while left:
            left = left[self._file.write(left) :]
        self._is_torn = False

    def _is_replaced(self) -> bool:
        """Whether the path names another file by now, or none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._inode

    def _begun(self) -> FileIO:
        """The file with a line for each client, open to append."""
        lines = [_line(*item) for item in sorted(self.last.items())]
        write_atomically(self._path, b"".join(lines), mode=0o600)
        file = self._path.open("ab", buffering=0)
        opened = os.fstat(file.fileno())
        self._inode, self._is_torn = (opened.st_dev, opened.st_ino), False
        return file

    def _begin_again(self) -> None:
        self._num_lines = 0
        before, self._file = self._file, self._begun()
        before.close()


def guard_of(
    path: Path | None, known: Mapping[str, int]
) -> tuple[ReplayGuard, SequenceFile | None]:
    """A guard that goes on where the process before it ended, and its file.

    Args:
      path: Of the file; None keeps nothing, for tests.
      known: What the journal remembers.
    """
    if path is None:
        return ReplayGuard(known), None
    file = SequenceFile(path, known)
    return ReplayGuard(file.last, keep=file.note), file


def _line(client_id: str, sequence: int) -> bytes:
    content = f"{client_id} {sequence}"
    return f"{content} {zlib.crc32(content.encode()):08x}\n".encode()


def _read(path: Path) -> list[tuple[str, int]]:
    """The lines that are whole: a flipped bit must not lock a partner out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines(keepends=True):
        client_id, _, rest = line.decode("ascii", errors="replace").partition(" ")
        sequence = rest.partition(" ")[0]
        if sequence.isdecimal() and line == _line(client_id, int(sequence)):
            found.append((client_id, int(sequence)))
    return found
