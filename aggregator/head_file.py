"""How long the journal was when it last answered: a small file beside the database.

A database that lost its newest records can still look whole: SQLite forgets what a
damaged write-ahead log held, a PostgreSQL that was restored is one from yesterday. So
the head is written down apart from it. Two slots are written in turn, so that a crash
in the middle of one leaves the other.
"""

import json
import os
from pathlib import Path

from aggregator.events import Head
from fedtrain.core.chain import digest
from fedtrain.core.files import sync_folder

_SLOT_BYTES = 512


class HeadFile:
    """The two slots at ``path``; the file is made with the first head.

    Raises:
      OSError: If the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        is_new = not path.exists()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if is_new:
            sync_folder(path.parent)
        self._next_slot = 0
        self._is_blank = os.fstat(self._handle).st_size == 0

    def read(self) -> Head | None:
        """The newest intact head; None where no slot is intact.

        A file that nothing was written to is the head of an empty journal.
        """
        if self._is_blank:
            return Head()
        content = os.pread(self._handle, 2 * _SLOT_BYTES, 0)
        slots = [content[:_SLOT_BYTES], content[_SLOT_BYTES:]]
        heads = [_parsed(slot) for slot in slots]
        newest = max((head for head in heads if head is not None), default=None)
        self._next_slot = 1 - heads.index(newest) if newest is not None else 0
        return newest

    def write(self, head: Head) -> None:
        """Puts ``head`` on the disk, in the place of the older of the two."""
        entry = head._asdict()
        line = json.dumps({**entry, "digest": digest(entry)}).encode()
        slot = line.ljust(_SLOT_BYTES)
        os.pwrite(self._handle, slot, self._next_slot * _SLOT_BYTES)
        os.fdatasync(self._handle)
        self._next_slot = 1 - self._next_slot
        self._is_blank = False

    def close(self) -> None:
        """Closes the file."""
        os.close(self._handle)


def _parsed(slot: bytes) -> Head | None:
    try:
        entry = json.loads(slot)
        given = entry.pop("digest")
        return Head(**entry) if given == digest(entry) else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
