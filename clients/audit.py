"""The partner's own record of what left its machine: append-only and hash-chained.

An entry is on the disk before the first byte of what it tells of goes out; another one
says how the aggregator took it. There is no data and no key in it. Each entry also
holds how long the privacy ledger was, so that a ledger that lost its end is noticed.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.core.chain import (
    GENESIS,
    append_lines,
    checked_entry,
    locked,
    sealed,
    usable,
)
from fedtrain.core.errors import LedgerError


class Head(NamedTuple):
    """What a log was once.

    Attributes:
      length: Number of its entries.
      hash: Of the last one.
    """

    length: int
    hash: str


class AuditLog:
    """The log in one file, which is made at the first entry.

    An unfinished last line, which a power failure may leave, is taken off: what it
    would have told of was not sent yet.

    Raises:
      LedgerError: If an entry was changed, taken out or put in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with locked(path):
            _drop_unfinished(path)
            self._entries = entries(path)

    def append(self, what: str, facts: Mapping[str, Any]) -> None:
        """Writes an entry and waits until it is on the disk.

        Args:
          what: What happened, such as "sending" or "accepted".
          facts: Plain values about it.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = sealed({"when": now, "what": what, **facts}, self.head()["hash"])
        with locked(self.path):
            append_lines(self.path, [entry])
        self._entries.append(entry)

    def head(self) -> dict[str, Any]:
        """The number of entries and the hash of the last one."""
        return _head(self._entries)

    def ledgers(self) -> dict[str, Any]:
        """The newest head of each ledger that an answer was charged to, by its file."""
        sent = (entry for entry in self._entries if entry["what"] == "sending")
        return {entry["ledger"]["file"]: entry["ledger"] for entry in sent}

    def last(self, **facts: Any) -> dict[str, Any] | None:
        """The newest entry that has all of ``facts``."""
        for entry in reversed(self._entries):
            if all(entry.get(name) == value for name, value in facts.items()):
                return entry
        return None


def verify(path: Path, noted: Head | None = None) -> dict[str, Any]:
    """Checks every entry of the log at ``path``.

    Args:
      path: Of the log.
      noted: A head that it had once, as the aggregator received it with an answer.

    Returns:
      Its length and the hash of its last entry: whoever notes these down can tell
      later whether its end is missing.

    Raises:
      LedgerError: If there is no log, an entry is not what was written, or what was
        noted is not in it.
    """
    if not path.exists():
        raise LedgerError(f"{path} does not exist: nothing has left this machine yet.")
    found = entries(path)
    if noted is not None and _head(found[: noted.length]) != noted._asdict():
        raise LedgerError(
            f"{path} is not the log whose entry {noted.length} had the hash "
            f"{noted.hash}: it was replaced, or lost its end. Keep it as evidence."
        )
    return {"log": str(path), "intact": True, **_head(found)}


def entries(path: Path) -> list[dict[str, Any]]:
    """All entries of the log at ``path``, checked.

    Raises:
      LedgerError: Naming the first one that is not what was written.
    """
    return list(_checked(path))


def _checked(path: Path) -> Iterator[dict[str, Any]]:
    with usable(path):
        content = path.read_bytes() if path.exists() else b""
    previous = GENESIS
    *lines, unfinished = content.split(b"\n")
    for number, line in enumerate([*lines, unfinished] if unfinished else lines, 1):
        entry = checked_entry(line, previous)
        if entry is None:
            raise LedgerError(
                f"{path}: entry {number} is not what was written, or does not follow "
                "the one before it. Keep the file as evidence, find out who changed "
                "it, and move it away: a new log is begun."
            )
        previous = entry["hash"]
        yield entry


def _head(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"length": len(found), "hash": found[-1]["hash"] if found else GENESIS}


def _drop_unfinished(path: Path) -> None:
    with usable(path):
        content = path.read_bytes() if path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
