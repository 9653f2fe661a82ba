import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.audit import AuditLog, Head, entries, verify
from fedtrain.core import chain
from fedtrain.core.errors import LedgerError


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(3):
        log.append("sending", {"round": number, "bytes": 32})
    return log


def test_entries_are_there_again_and_go_on(log):
    again = AuditLog(log.path)
    assert again.head() == log.head()
    again.append("accepted", {"round": 2})
    found = verify(log.path)
    assert (found["length"], found["hash"]) == (4, again.head()["hash"])
    assert again.last(what="sending", round=1)["bytes"] == 32
    assert again.last(what="sending", round=3) is None
    assert log.path.stat().st_mode & 0o077 == 0


def test_a_log_that_lost_its_end_is_not_the_one_that_was_noted(log):
    noted = Head(**log.head())
    log.append("accepted", {"round": 2})
    assert verify(log.path, noted)["length"] == 4
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text("".join(lines[:2]))
    assert verify(log.path)["intact"]
    with pytest.raises(LedgerError, match="replaced, or lost its end"):
        verify(log.path, noted)
    log.path.unlink()
    again = AuditLog(log.path)
    for number in range(3):
        again.append("sending", {"round": number, "bytes": 33})
    with pytest.raises(LedgerError, match="replaced, or lost its end"):
        verify(log.path, noted)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines],
    ],
    ids=["taken out", "reordered", "shortened in front", "put in"],
)
def test_what_was_moved_is_found(log, change):
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text("".join(change(lines)))
    with pytest.raises(LedgerError, match="is not what was written"):
        verify(log.path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log = AuditLog(path)
    log.append("sending", {"round": 0, "spent": {"epsilon": 0.25}})
    log.append("accepted", {"round": 0})
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 2))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        verify(path)


def test_an_unfinished_line_is_taken_off_and_verify_says_so_before(log):
    with log.path.open("a") as file:
        file.write('{"what": "send')
    with pytest.raises(LedgerError, match="entry 4 "):
        verify(log.path)
    AuditLog(log.path).append("sending", {"round": 3})
    assert [entry["round"] for entry in entries(log.path)] == [0, 1, 2, 3]


def test_a_full_disk_leaves_the_log_as_it_was(log, monkeypatch):
    before = log.path.read_bytes()

    def half(handle, data):
        return real(handle, data[: len(data) // 2])

    real = chain.os.write
    monkeypatch.setattr(chain.os, "write", half)
    with pytest.raises(LedgerError, match="disk full"):
        log.append("sending", {"round": 3})
    assert log.path.read_bytes() == before


def test_a_log_that_is_not_there_is_said(tmp_path):
    with pytest.raises(LedgerError, match="nothing has left"):
        verify(tmp_path / "audit.jsonl")


def test_entries_are_plain_json(log):
    entry = json.loads(log.path.read_text().splitlines()[0])
    assert set(entry) == {"when", "what", "round", "bytes", "previous", "hash"}
