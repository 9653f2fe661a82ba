"""The table that holds events: SQLite's or PostgreSQL's, by SQLAlchemy's URL."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from aggregator.events import BrokenChainError, Row
from fedtrain.core.errors import ConfigError, JournalError

DATABASE_ERRORS = (SQLAlchemyError, sqlite3.Error, UnicodeError)
_LOCK_KEY = 0x66656474  # "fedt": PostgreSQL's advisory locks have numbers
_ROWS_AT_ONCE = 1000
_EVENTS = Table(
    "fedtrain_events",
    MetaData(),
    Column(
        "sequence",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("unix_ms", BigInteger, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("round_number", BigInteger),
    Column("attempt", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)


class EventTable:
    """Rows of one database; every method is one transaction.

    Args:
      url: SQLAlchemy's, for example ``sqlite:////var/lib/fedtrain/journal.sqlite`` or
        ``postgresql+psycopg://host/database``.

    Raises:
      ConfigError: If the URL is of neither database.
    """

    def __init__(self, url: str) -> None:
        self.name = _shown(url)
        self._engine = _engine(url)
        self._connection: Connection | None = None

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database; None for a server's."""
        return sqlite_path(self._engine.url.render_as_string(hide_password=False))

    def open_to_write(self) -> None:
        """Makes the table where there is none, and keeps other writers out.

        Raises:
          JournalError: If another process writes to this database.
        """
        connection = self._connected()
        with connection.begin():
            _EVENTS.create(connection, checkfirst=True)

    def connect(self) -> None:
        """Makes the connection that writes where there is none."""
        self._connected()

    def append(self, rows: Sequence[Row]) -> None:
        """Inserts ``rows``; they are on the disk when this returns."""
        connection = self._connected()
        with connection.begin():
            connection.execute(insert(_EVENTS), [dict(row) for row in rows])

    def last(self) -> Row | None:
        """The row with the greatest sequence."""
        query = select(_EVENTS).order_by(_EVENTS.c.sequence.desc()).limit(1)
        connection = self._connected()
        with connection.begin():
            row = connection.execute(query).mappings().first()
        return None if row is None else dict(row)

    def replace(self, rows: Sequence[Row]) -> None:
        """Puts ``rows`` in the place of all that is there, at once or not at all."""
        connection = self._connected()
        with connection.begin():
            connection.execute(delete(_EVENTS))
            if rows:
                connection.execute(insert(_EVENTS), [dict(row) for row in rows])

    def rows(self, *, after: int = 0) -> Iterator[Row]:
        """All rows behind ``after`` in their order, through a connection of its own.

        Raises:
          BrokenChainError: Where the database itself is damaged.
        """
        reached = after
        while True:
            try:
                part = self._part(reached)
            except DATABASE_ERRORS as error:
                raise BrokenChainError(
                    f"{self.name}: what follows event {reached} cannot be read: "
                    f"{_first_line(error)}.",
                    sequence=reached + 1,
                ) from error
            yield from part
            if len(part) < _ROWS_AT_ONCE:
                return
            reached += len(part)

    def drop_connection(self) -> None:
        """Leaves a connection that failed; the next use makes a new one."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Gives the database back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()

    def _part(self, reached: int) -> list[Row]:
        query = (
            select(_EVENTS)
            .order_by(_EVENTS.c.sequence)
            .where(_EVENTS.c.sequence > reached)
            .limit(_ROWS_AT_ONCE)
        )
        with self._engine.connect() as connection:
            if not self._engine.dialect.has_table(connection, _EVENTS.name):
                return []
            return [dict(row) for row in connection.execute(query).mappings()]

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = self._engine.connect()
            if self._engine.dialect.name == "postgresql":
                _lock(connection, self.name)
            self._connection = connection
        return self._connection


def sqlite_path(url: str) -> Path | None:
    """The file that an SQLite URL names; None for other databases."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(str(parsed.database)) if is_file else None


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path.absolute()}"


def _engine(url: str) -> Engine:
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise ConfigError(
            "service.database must be a database URL, such as "
            "postgresql+psycopg://host/database; what is there cannot be read as one."
        ) from error
    if backend == "postgresql":
        return create_engine(url, poolclass=NullPool, hide_parameters=True)
    if backend != "sqlite" or sqlite_path(url) is None:
        raise ConfigError(
            "service.database must be the URL of an SQLite file or of PostgreSQL, "
            f"got one of {backend}."
        )
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"check_same_thread": False}
    )
    event.listen(engine, "connect", _make_durable)
    return engine


def _make_durable(connection: sqlite3.Connection, _: object) -> None:
    for setting in ("journal_mode=WAL", "synchronous=FULL", "cell_size_check=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _lock(connection: Connection, name: str) -> None:
    # The setting and the lock are the session's: they outlive this transaction.
    with connection.begin():
        connection.execute(text("SET synchronous_commit = on"))
        query = text("SELECT pg_try_advisory_lock(:key)")
        is_ours = connection.execute(query, {"key": _LOCK_KEY}).scalar()
    if not is_ours:
        connection.close()
        raise JournalError(
            f"{name} is in use by another aggregator. Stop that one, or give this one "
            "a database of its own."
        )


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "the journal"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
