import errno

import pytest

from aggregator.sequences import SequenceFile, guard_of
from fedtrain.core.errors import ConfigError
from fedtrain.wire.signing import ReplayedRequestError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sequences.log"


@pytest.fixture
def opened(path):
    """Opens the file; each is closed at the end only, as if its process was killed."""
    files = []

    def opened(known=None):
        guard, file = guard_of(path, known or {})
        files.append(file)
        return guard, file

    yield opened
    for file in files:
        file.close()


def test_a_killed_process_forgets_no_sequence(opened):
    guard, _ = opened({"bank-a": 3})
    guard.accept("bank-a", 5)
    guard.accept("bank-b", 2)
    again, _ = opened({"bank-b": 9})  # the journal knows of a later one
    assert again.remembered() == {"bank-a": 5, "bank-b": 9}
    with pytest.raises(ReplayedRequestError, match="not above 5"):
        again.accept("bank-a", 5)


def test_lines_that_are_damaged_or_unfinished_count_for_nothing(path, opened):
    _, file = opened()
    for sequence in (1, 2, 3):
        file.note("bank-a", sequence)
    one, two, three = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(one + two.replace(b" 2 ", b" 9 ") + b"\xff\n" + three[:-1])
    assert opened()[1].last == {"bank-a": 1}


def test_a_file_that_has_grown_long_is_made_anew(path, opened, monkeypatch):
    monkeypatch.setattr("aggregator.sequences._MOST_LINES", 10)
    _, file = opened()
    for sequence in range(1, 26):
        file.note("bank-a", sequence)
    assert len(path.read_bytes().splitlines()) <= 11
    assert opened()[1].last == {"bank-a": 25}


def test_a_full_disk_stops_no_round_and_is_told_once(opened, monkeypatch, caplog):
    _, file = opened()

    class Full:
        def write(self, line):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file, "_file", Full())
        file.note("bank-a", 1)
        file.note("bank-a", 2)
    assert file.last == {"bank-a": 2}
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_read_is_one_clear_error(path):
    path.mkdir()
    with pytest.raises(ConfigError, match=r"sequences.log cannot be used"):
        SequenceFile(path, {})


class Short:
    """A file of which every write takes a few bytes, until the disk is full."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, line):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(line[: min(3, self.room)])
        self.room -= taken
        return taken


def test_short_writes_tear_no_line(opened, monkeypatch):
    _, file = opened()
    with monkeypatch.context() as patched:
        patched.setattr(file, "_file", Short(file._file, room=1000))
        file.note("bank-a", 1)
        patched.setattr(file, "_file", Short(file._file.file, room=5))
        file.note("bank-a", 2)
    file.note("bank-a", 3)
    file.note("bank-b", 1)
    assert opened()[1].last == {"bank-a": 3, "bank-b": 1}


@pytest.mark.parametrize("put_back", [True, False])
def test_a_file_that_was_replaced_is_written_anew(path, opened, put_back):
    _, file = opened()
    file.note("bank-a", 1)
    old = path.read_bytes()
    path.unlink()
    if put_back:
        path.write_bytes(old)
    file.note("bank-a", 2)
    assert opened()[1].last == {"bank-a": 2}
