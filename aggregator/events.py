"""What happened in a run, as events: each holds the hash of the one before it."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fedtrain.core.chain import GENESIS, digest
from fedtrain.core.errors import JournalError

# What an open, uncommitted round consists of. All other kinds may never be dropped.
OF_AN_OPEN_ROUND = frozenset(
    {"planned", "configured", "collecting", "accepted", "lost", "closed", "aborted"}
)


class Draft(NamedTuple):
    """An event that is not written yet.

    Attributes:
      run_id: The run it belongs to.
      round_number: From 0; None for what concerns the whole run.
      attempt: From 0; a round that was aborted is tried again as the next attempt.
      kind: What happened.
      body: Details: plain values that JSON can hold.
      unix_ms: The wall clock's time. It informs; nothing is decided by it.
    """

    run_id: str
    round_number: int | None
    attempt: int
    kind: str
    body: Mapping[str, Any]
    unix_ms: int


class Event(NamedTuple):
    """A written event.

    Attributes:
      sequence: From 1, without gaps.
      draft: What happened.
      previous: Hash of the event before it.
      hash: SHA-256 over all the rest, in hexadecimal.
    """

    sequence: int
    draft: Draft
    previous: str
    hash: str


class Head(NamedTuple):
    """How far a journal has got.

    Attributes:
      sequence: Of the last event; 0 for an empty journal.
      hash: Of the last event.
      firm: Sequence of the last event that no repair may drop.
    """

    sequence: int = 0
    hash: str = GENESIS
    firm: int = 0

    def after(self, event: Event) -> "Head":
        """The head once ``event`` was appended."""
        is_firm = event.draft.kind not in OF_AN_OPEN_ROUND
        firm = event.sequence if is_firm else self.firm
        return Head(event.sequence, event.hash, firm)


class BrokenChainError(JournalError):
    """An event was changed, or one before the last is missing.

    Attributes:
      sequence: Of the first event that is not what was written.
    """

    def __init__(self, message: str, *, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence


Row = Mapping[str, Any]


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def rows_after(head: Head, drafts: Iterable[Draft]) -> list[Row]:
    """The columns of ``drafts`` as the events that follow ``head``."""
    rows: list[Row] = []
    sequence, previous = head.sequence, head.hash
    for draft in drafts:
        sequence += 1
        row = {**_columns(draft), "sequence": sequence, "previous": previous}
        previous = digest(row)
        rows.append({**row, "hash": previous})
    return rows


def row_of(event: Event) -> Row:
    """The columns of a written event."""
    chain = {"sequence": event.sequence, "previous": event.previous}
    return {**_columns(event.draft), **chain, "hash": event.hash}


def event_of(row: Row) -> Event:
    """The event that a checked row holds."""
    values = {name: row[name] for name in Draft._fields}
    draft = Draft(**{**values, "body": json.loads(row["body"])})
    return Event(row["sequence"], draft, row["previous"], row["hash"])


def chained(rows: Iterable[Row]) -> Iterator[Event]:
    """The events of ``rows``, each checked before it is given.

    Raises:
      BrokenChainError: At the first that is not what was written.
    """
    previous = GENESIS
    for sequence, row in enumerate(rows, start=1):
        if not _follows(row, sequence, previous):
            raise BrokenChainError(f"Event {sequence} is damaged.", sequence=sequence)
        previous = row["hash"]
        yield event_of(row)


def _columns(draft: Draft) -> dict[str, Any]:
    body = json.dumps(
        draft.body, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return {**draft._asdict(), "body": body}


def _follows(row: Row, sequence: int, previous: str) -> bool:
    try:
        own_hash = digest({name: row[name] for name in row if name != "hash"})
    except (TypeError, ValueError):
        return False
    chain = (row["sequence"], row["previous"], row["hash"])
    return chain == (sequence, previous, own_hash)
