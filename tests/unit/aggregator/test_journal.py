import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aggregator.events import Draft
from aggregator.journal import Journal, JournalUnavailableError, stored_events
from aggregator.journal_repair import backup, repair, restore
from fedtrain.core.errors import ConfigError, JournalError
from tests.unit.aggregator.postgres import running_postgres

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def postgres():
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    """None for SQLite in the folder, or a fresh PostgreSQL database."""
    if request.param == "sqlite":
        return None
    return _fresh_database(request.getfixturevalue("postgres"))


def _fresh_database(url):
    import psycopg  # noqa: PLC0415 # the tests on SQLite do without it

    name = f"test{next(_NAMES)}"
    plain = url.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


def _draft(kind="accepted", **body):
    return Draft("run", 3, 0, kind, body, 1_700_000_000_000)


def _written(folder, drafts, url=None):
    journal = Journal(folder, url)
    journal.append(drafts)
    journal.close()


def test_what_was_appended_is_there_after_opening_again(tmp_path, url):
    drafts = [
        _draft("planned", cohort=["a", "b"]),
        _draft(client="a"),
        _draft("closed"),
    ]
    _written(tmp_path, drafts[:1], url)
    _written(tmp_path, drafts[1:], url)
    journal = Journal(tmp_path, url)
    events = list(journal.events())
    journal.close()
    assert [event.draft for event in events] == drafts
    assert [event.sequence for event in events] == [1, 2, 3]
    assert [event.previous for event in events[1:]] == [e.hash for e in events[:-1]]


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path, url):
    journal = Journal(tmp_path, url)
    journal.append([_draft("planned")])
    with pytest.raises(JournalError, match="in use by another aggregator"):
        Journal(tmp_path, url)
    assert len(list(stored_events(tmp_path, url))) == 1
    if url is not None:
        with pytest.raises(JournalError, match="in use by another aggregator"):
            Journal(tmp_path / "elsewhere", url)
    journal.close()


def test_threads_that_append_at_once_leave_a_whole_chain(tmp_path):
    journal = Journal(tmp_path)
    threads = [
        threading.Thread(target=journal.append, args=([_draft(client=str(n))],))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clients = {event.draft.body["client"] for event in journal.events()}
    journal.close()
    assert clients == {str(n) for n in range(20)}


def test_a_backup_is_taken_while_serving_and_restores_all(tmp_path, url):
    journal = Journal(tmp_path / "state", url)
    journal.append([_draft("planned"), _draft("charged"), _draft("committed")])
    backup(tmp_path / "state", tmp_path / "saved.jsonl", url)
    journal.append([_draft("planned")])
    journal.close()
    restore(tmp_path / "state", tmp_path / "saved.jsonl", url)
    kinds = [event.draft.kind for event in stored_events(tmp_path / "state", url)]
    assert kinds == ["planned", "charged", "committed", "restored"]
    Journal(tmp_path / "state", url).close()
    with pytest.raises(ConfigError, match="exists already"):
        backup(tmp_path / "state", tmp_path / "saved.jsonl", url)


def test_a_backup_that_lost_its_end_or_was_changed_is_refused(tmp_path):
    _written(tmp_path / "state", [_draft("planned"), _draft("closed")])
    backup(tmp_path / "state", tmp_path / "saved.jsonl")
    content = (tmp_path / "saved.jsonl").read_text()
    for damaged in (content.rsplit("\n", 2)[0], content.replace("closed", "zlosed")):
        (tmp_path / "bad.jsonl").write_text(damaged)
        with pytest.raises(JournalError, match="backup"):
            restore(tmp_path / "state", tmp_path / "bad.jsonl")


def test_a_changed_event_is_named(tmp_path, url):
    from sqlalchemy import create_engine, text  # noqa: PLC0415 # only to do damage

    _written(tmp_path, [_draft("planned"), _draft(client="a"), _draft("closed")], url)
    engine = create_engine(url or f"sqlite:///{tmp_path}/journal.sqlite")
    with engine.begin() as connection:
        change = "UPDATE fedtrain_events SET body = '{}' WHERE sequence = 2"
        connection.execute(text(change))
    engine.dispose()
    with pytest.raises(JournalError, match="Event 2 is damaged"):
        Journal(tmp_path, url)
    assert repair(tmp_path, url) == (1, 2)
    journal = Journal(tmp_path, url)
    kinds = [event.draft.kind for event in journal.events()]
    journal.close()
    assert kinds == ["planned", "repaired"]


@pytest.mark.parametrize("kind", ["charged", "committed", "finished"])
def test_no_repair_drops_what_was_spent_or_released(tmp_path, kind):
    from sqlalchemy import create_engine, text  # noqa: PLC0415 # only to do damage

    _written(tmp_path, [_draft("planned"), _draft(kind), _draft("planned")])
    engine = create_engine(f"sqlite:///{tmp_path}/journal.sqlite")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM fedtrain_events WHERE sequence > 1"))
    engine.dispose()
    with pytest.raises(JournalError, match="event 1 is now the last"):
        Journal(tmp_path)
    with pytest.raises(JournalError, match="restore"):
        repair(tmp_path)


_KILLED = """
import os, sys
from aggregator.journal import Journal
from tests.unit.aggregator.test_journal import _draft
journal = Journal(sys.argv[1])
for number in range(4):
    journal.append([_draft(client=f"client-{number}")])
os.kill(os.getpid(), 9)
"""


def test_every_flipped_bit_of_a_killed_writers_newest_records_is_found(tmp_path):
    # Killed, so that the newest records are in SQLite's write-ahead log alone.
    folder = tmp_path / "state"
    subprocess.run([sys.executable, "-c", _KILLED, folder], check=False)
    files = [p for p in folder.iterdir() if p.suffix not in {".lock", ".sqlite-shm"}]
    whole = {path.name: path.read_bytes() for path in files}
    assert len(whole["journal.sqlite-wal"]) > 1000
    position = whole["journal.sqlite-wal"].rindex(b"client-3")
    for offset in (0, 7, -40, -80):
        damaged = bytearray(whole["journal.sqlite-wal"])
        damaged[position + offset] ^= 4
        again = _copy_of(whole, tmp_path / f"flip{offset}")
        (again / "journal.sqlite-wal").write_bytes(damaged)
        with pytest.raises(JournalError, match="event 4 was written"):
            Journal(again)
    assert len(list(stored_events(_copy_of(whole, tmp_path / "intact")))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_a_flip_of_any_byte_is_found_or_does_no_harm(tmp_path, killed):
    folder = tmp_path / "state"
    if killed:
        subprocess.run([sys.executable, "-c", _KILLED, folder], check=False)
    else:
        _written(folder, [_draft(client=f"client-{n}") for n in range(4)])
    whole = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".lock"}
    whole = {name: content for name, content in whole.items() if "shm" not in name}
    expected = [event.hash for event in stored_events(_copy_of(whole, tmp_path / "x"))]
    found = 0
    for name, content in whole.items():
        for position in range(0, len(content), 1 if len(content) < 3000 else 7):
            damaged = bytearray(content)
            damaged[position] ^= 1 << (position % 8)
            again = _copy_of({**whole, name: bytes(damaged)}, tmp_path / "flip")
            try:
                journal = Journal(again)
            except JournalError:
                found += 1
                continue
            assert [event.hash for event in journal.events()] == expected, position
            journal.close()
    assert found > 100


def _copy_of(whole, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    return folder


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from aggregator.journal import Journal, JournalUnavailableError
from tests.unit.aggregator.test_journal import _draft
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(sys.argv[1])
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
written = (Path(sys.argv[1]) / "journal.sqlite-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (written + 20_000, limits[1]))
try:
    for number in range(1000):
        journal.append([_draft(client=str(number), filler="x" * 500)])
except JournalUnavailableError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
journal.append([_draft(client=str(number))])
print(number, len(list(journal.events())))
"""


def test_a_full_disk_refuses_an_event_and_keeps_the_journal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    number, events = map(int, done.stdout.split())
    assert 0 < number < 999
    assert events == number + 1
    assert len(list(stored_events(tmp_path))) == number + 1


def test_a_lost_database_is_not_there_now_and_comes_back(tmp_path, postgres):
    import psycopg  # noqa: PLC0415 # the tests on SQLite do without it

    url = _fresh_database(postgres)
    journal = Journal(tmp_path, url)
    journal.append([_draft("planned")])
    with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname LIKE 'test%'"
        )
    with pytest.raises(JournalUnavailableError):
        journal.append([_draft("closed")])
    journal.append([_draft("closed")])
    assert [event.draft.kind for event in journal.events()] == ["planned", "closed"]
    journal.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(tmp_path / "file" / "state")
    with pytest.raises(ConfigError, match="mysql"):
        Journal(tmp_path, "mysql://host/database")
    with pytest.raises(ConfigError, match="database URL") as caught:
        Journal(tmp_path, "postgresql//me:secret@host/database")
    assert "secret" not in str(caught.value)
    with pytest.raises(JournalError, match="There is no journal"):
        list(stored_events(tmp_path / "nowhere"))
    assert os.listdir(tmp_path) != []
