"""Copies of the journal, and what to do when it is damaged."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aggregator.event_table import DATABASE_ERRORS, EventTable, sqlite_path
from aggregator.events import (
    BrokenChainError,
    Draft,
    Head,
    Row,
    chained,
    now_ms,
    row_of,
    rows_after,
)
from aggregator.head_file import HeadFile
from aggregator.journal import default_url, head_path, locked_folder, stored_events
from fedtrain.core.errors import ConfigError, JournalError
from fedtrain.core.files import sync_folder


class Repaired(NamedTuple):
    """What a repair did.

    Attributes:
      kept: Number of events that were kept.
      dropped: Number of events that are no more; all were of an open round.
    """

    kept: int
    dropped: int


def backup(folder: Path | str, to: Path | str, url: str | None = None) -> Head:
    """Writes all events, checked, to ``to`` as JSON lines; serving may go on meanwhile.

    Raises:
      ConfigError: If ``to`` exists, or cannot be written.
      JournalError: If the journal is damaged; nothing is left at ``to``.
    """
    to = Path(to)
    if to.exists():
        raise ConfigError(f"{to} exists already; a backup needs a new name.")
    beside = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    head = Head()
    try:
        with beside.open("x", encoding="utf-8") as file:
            for event in stored_events(folder, url):
                file.write(f"{json.dumps(row_of(event))}\n")
                head = head.after(event)
            file.write(f"{json.dumps({'head': head})}\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(to)
        sync_folder(to.parent)
    except OSError as error:
        raise ConfigError(f"No backup can be written to {to}: {error}.") from error
    finally:
        beside.unlink(missing_ok=True)
    return head


def restore(folder: Path | str, saved: Path | str, url: str | None = None) -> Head:
    """Puts a backup in the place of the journal; an SQLite file is kept aside.

    What happened after the backup is not in the journal any more. The privacy ledger
    still holds what that cost: nothing is refunded.

    Raises:
      JournalError: If the backup is damaged, or an aggregator is running.
    """
    folder = Path(folder)
    rows = _saved_rows(Path(saved))
    lock = locked_folder(folder)
    try:
        return _replace(folder, url, rows, note="restored")
    finally:
        lock.release()


def repair(folder: Path | str, url: str | None = None) -> Repaired:
    """Keeps the events before the first damage, if only an open round's are lost.

    The clients of that round are asked again.

    Raises:
      JournalError: If a charge, a commit or the like is lost, or may be: then only a
        backup helps.
    """
    folder = Path(folder)
    lock = locked_folder(folder)
    try:
        return _repair(folder, url)
    finally:
        lock.release()


def _repair(folder: Path, url: str | None) -> Repaired:
    rows, is_whole = _intact(url or default_url(folder))
    noted = _noted(folder)
    kept = len(rows)
    firm = kept if noted is None and is_whole else noted.firm if noted else kept + 1
    if firm > kept:
        raise JournalError(
            f"The journal in {folder} is intact up to event {kept}, but a charge or a "
            "commit after it is lost, or may be. Use `fedtrain-aggregator restore` "
            "with the newest backup."
        )
    _replace(folder, url, rows, note="repaired")
    return Repaired(kept, max(noted.sequence - kept, 0) if noted else 0)


def _replace(folder: Path, url: str | None, rows: Sequence[Row], *, note: str) -> Head:
    url = url or default_url(folder)
    path = sqlite_path(url)
    if path is not None:
        _set_aside(path)
    head = _head_of(rows)
    run_id = str(rows[-1]["run_id"]) if rows else ""
    added = rows_after(head, [Draft(run_id, None, 0, note, {}, now_ms())])
    table = EventTable(url)
    try:
        table.open_to_write()
        table.replace([*rows, *added])
    except DATABASE_ERRORS as error:
        raise JournalError(f"{table.name} cannot be written: {error}") from error
    finally:
        table.close()
    head = _head_of([*rows, *added])
    head_path(folder).unlink(missing_ok=True)
    _write_head(folder, head)
    return head


def _set_aside(path: Path) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.replace(path.with_name(f"{path.name}.until-{stamp}{suffix}"))


def _write_head(folder: Path, head: Head) -> None:
    file = HeadFile(head_path(folder))
    try:
        file.write(head)
    finally:
        file.close()


def _noted(folder: Path) -> Head | None:
    file = HeadFile(head_path(folder))
    try:
        return file.read()
    finally:
        file.close()


def _intact(url: str) -> tuple[list[Row], bool]:
    table = EventTable(url)
    rows: list[Row] = []
    try:
        rows.extend(row_of(event) for event in chained(table.rows()))
    except BrokenChainError:
        # What was read before the damage is in ``rows``: extend adds one by one.
        return rows, False
    finally:
        table.close()
    return rows, True


def _head_of(rows: Sequence[Row]) -> Head:
    head = Head()
    for event in chained(rows):
        head = head.after(event)
    return head


def _saved_rows(saved: Path) -> list[Row]:
    try:
        *rows, end = list(_json_lines(saved))
        head = _head_of(rows)
    except (OSError, ValueError, BrokenChainError) as error:
        raise JournalError(f"{saved} is not an intact backup: {error}") from error
    if end != {"head": list(head)}:
        raise JournalError(f"{saved} is not a whole backup; take another one.")
    return rows


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
