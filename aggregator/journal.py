"""The journal: what the aggregator will still know after it was killed.

Events are appended to a table and are on the disk when ``append`` returns; none is ever
changed. The chain of hashes is checked when the journal is opened, and against the head
that is kept beside it, so neither a changed nor a missing event goes unseen.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from aggregator.event_table import (
    DATABASE_ERRORS,
    EventTable,
    sqlite_path,
    sqlite_url,
)
from aggregator.events import (
    BrokenChainError,
    Draft,
    Event,
    Head,
    Row,
    chained,
    event_of,
    rows_after,
)
from aggregator.head_file import HeadFile
from fedtrain.core.errors import JournalError

WAY_OUT = (
    "Stop the aggregator, then `fedtrain-aggregator repair` drops what an open round "
    "recorded since, or `fedtrain-aggregator restore` takes a backup."
)
_DOUBT_S = 60.0
_LOG = logging.getLogger(__name__)


class JournalUnavailableError(JournalError):
    """An event could not be written now: a full disk, a lost connection. Try again."""


class Journal:
    """One writer's append-only list of events.

    Args:
      folder: For the lock, the head and, without ``url``, the database; made if needed.
      url: SQLAlchemy's URL of the database; None for ``folder/journal.sqlite``.

    Raises:
      JournalError: If it is damaged (which event is named), in use, or not usable.
    """

    def __init__(self, folder: Path | str, url: str | None = None) -> None:
        folder = Path(folder)
        self._lock = threading.Lock()
        self._failure: JournalError | None = None
        self._folder_lock = locked_folder(folder)
        try:
            self._table = EventTable(url or default_url(folder))
            self._head_file = HeadFile(head_path(folder))
            self.head = self._checked_head()
        except (OSError, *DATABASE_ERRORS) as error:
            self._folder_lock.release()
            raise JournalError(f"The journal cannot be opened: {error}") from error
        except BaseException:
            self._folder_lock.release()
            raise

    @property
    def name(self) -> str:
        """The database's URL, without a password."""
        return self._table.name

    def append(self, drafts: Sequence[Draft]) -> list[Event]:
        """Writes ``drafts`` as the next events: all of them, on the disk, or none.

        Raises:
          JournalUnavailableError: If the database does not take them now.
          JournalError: If somebody else has written to it.
        """
        with self._lock:
            rows = rows_after(self.head, drafts)
            if rows:
                self._insert(rows)
            events = [event_of(row) for row in rows]
            for event in events:
                self.head = self.head.after(event)
            self._note_head()
            return events

    def events(self) -> Iterator[Event]:
        """All events in their order, checked again as they are read."""
        return chained(self._table.rows())

    def close(self) -> None:
        """Gives the database and the folder back."""
        with self._lock:
            self._table.close()
            self._head_file.close()
            self._folder_lock.release()

    def _checked_head(self) -> Head:
        self._table.open_to_write()
        reached = checked_head(self._table, self._head_file.read())
        self._head_file.write(reached)
        return reached

    def _insert(self, rows: Sequence[Row]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._table.connect()
        except DATABASE_ERRORS as error:
            raise self._unavailable(error) from error
        try:
            self._table.append(rows)
        except DATABASE_ERRORS as error:
            if not self._is_there(rows[-1]["hash"]):
                raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> JournalUnavailableError:
        return JournalUnavailableError(f"{self.name} does not take events: {error}")

    def _is_there(self, last_hash: str) -> bool:
        # A commit that failed may have happened: only the database knows.
        give_up = time.monotonic() + _DOUBT_S
        while True:
            try:
                found = self._last_hash()
                break
            except DATABASE_ERRORS as error:
                self._table.drop_connection()
                if time.monotonic() > give_up:
                    self._fail(f"it is not known what {self.name} holds: {error}")
                time.sleep(0.1)
        if found not in (last_hash, self.head.hash):
            self._fail(f"{self.name} has events that this aggregator did not write")
        return found == last_hash

    def _last_hash(self) -> str:
        last = self._table.last()
        return Head().hash if last is None else str(last["hash"])

    def _fail(self, reason: str) -> NoReturn:
        self._failure = JournalError(f"The journal cannot go on: {reason}. {WAY_OUT}")
        raise self._failure

    def _note_head(self) -> None:
        try:
            self._head_file.write(self.head)
        except OSError:
            # The events are safe; the next append notes the head again.
            _LOG.warning("The journal's head was not noted", exc_info=True)


def default_url(folder: Path) -> str:
    """The URL of the SQLite database in ``folder``."""
    return sqlite_url(folder / "journal.sqlite")


def head_path(folder: Path) -> Path:
    """Where the head of the journal in ``folder`` is kept."""
    return folder / "journal.head"


def stored_events(folder: Path | str, url: str | None = None) -> Iterator[Event]:
    """Reads and checks the events while an aggregator may be writing more.

    Raises:
      JournalError: If there is no journal, or at the first event that is damaged.
    """
    url = url or default_url(Path(folder))
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise JournalError(
            f"There is no journal at {path}; `fedtrain-aggregator serve` makes it."
        )
    table = EventTable(url)
    try:
        yield from chained(table.rows())
    except BrokenChainError as error:
        raise JournalError(f"{table.name}: {error} {WAY_OUT}") from error
    finally:
        table.close()


def locked_folder(folder: Path) -> FileLock:
    """The lock of the one process that may write, taken; the folder is made.

    Raises:
      JournalError: If another process has it, or the folder cannot be used.
    """
    lock = FileLock(folder / "journal.lock", timeout=0, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire()
    except Timeout as error:
        raise JournalError(
            f"{folder} is in use by another aggregator; stop that one first, with "
            "Ctrl-C or `fedtrain-aggregator runs stop --resumable`."
        ) from error
    except OSError as error:
        raise JournalError(f"{folder} cannot be used: {error}.") from error
    return lock


def checked_head(table: EventTable, noted: Head | None) -> Head:
    """Reads all events; raises JournalError unless they are whole and reach ``noted``.

    Args:
      table: Holds the events.
      noted: The head that was kept apart; None if no intact one is left.
    """
    reached = Head()
    met = noted is not None and noted.sequence == 0
    try:
        for event in chained(table.rows()):
            reached = reached.after(event)
            met = met or (noted is not None and event.hash == noted.hash)
    except BrokenChainError as error:
        raise JournalError(f"{table.name}: {error} {WAY_OUT}") from error
    if noted is None:
        raise JournalError(
            f"{table.name}: the head kept beside it is damaged. {WAY_OUT}"
        )
    if not met:
        raise JournalError(
            f"{table.name}: event {noted.sequence} was written, but event "
            f"{reached.sequence} is now the last that is there. {WAY_OUT}"
        )
    return reached
