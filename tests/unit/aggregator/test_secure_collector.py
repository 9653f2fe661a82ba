"""Whole sessions: full disks, journals that are late, and partners that cheat."""

import errno

import numpy as np
import pytest

from aggregator.journal import JournalUnavailableError
from aggregator.rounds import RunStoppedError
from aggregator.uploads import RefusedError
from fedtrain.core.errors import TooFewClientsError
from fedtrain.secagg.messages_pb2 import ADVERTISEMENT, Advertisement
from fedtrain.wire import messages_pb2 as pb
from tests.unit.aggregator.light_round import Collecting, opened, until
from tests.unit.aggregator.secure_round import (
    CALL,
    NAMES,
    PATIENCE_S,
    WORDS,
    Partners,
    answered,
)


class Clock:
    """Stands still until a test moves it."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rounds(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("aggregator.collector._POLL_S", 0.01)
    journal, found = opened(tmp_path, clock=clock)
    yield found
    found.stop()
    journal.close()


def test_time_that_a_full_disk_took_is_not_the_partners(rounds, clock, monkeypatch):
    record, tries = rounds.book.record, []

    def full_at_first(drafts):
        tries.append(1)
        if len(tries) in (2, 3):  # the first one plans the round
            clock.now += 40.0
            raise JournalUnavailableError("the disk is full")
        record(drafts)

    monkeypatch.setattr(rounds.book, "record", full_at_first)
    collecting = Collecting(rounds, CALL._replace(deadline_s=30.0))
    partners = Partners(rounds)
    assert partners.answer(pb.KEYS, NAMES[:2]) == [pb.ACCEPTED] * 2
    assert len(tries) == 4
    rounds.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()


def test_the_opened_sum_waits_for_room_on_the_disk(rounds, monkeypatch):
    store, tries = rounds._spool.store_sum, []

    def full_at_first(*given):
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return store(*given)

    monkeypatch.setattr(rounds._spool, "store_sum", full_at_first)
    collecting = Collecting(rounds, CALL)
    partners = Partners(rounds)
    for step in (pb.KEYS, pb.SHARES, pb.INPUT, pb.CONSISTENCY, pb.UNMASKING):
        assert partners.answer(step) == [pb.ACCEPTED] * 3
    (total,) = collecting.done().total()
    np.testing.assert_array_equal(total, np.full(WORDS, 1 + 2 + 3, np.uint32))
    assert len(tries) == 3


def test_an_input_whose_line_was_not_written_in_time_is_in_the_journal_as_it_came(
    rounds, monkeypatch
):
    reception = rounds._reception._secure
    note = reception._note

    def unwritten(state, body):
        if body["client"] == "cyd":
            raise RefusedError(pb.BUSY, "not now")
        note(state, body)

    monkeypatch.setattr(reception, "_note", unwritten)
    collecting = Collecting(rounds, CALL)
    partners = Partners(rounds)
    for step in (pb.KEYS, pb.SHARES):
        partners.answer(step)
    assert partners.answer(pb.INPUT) == [pb.ACCEPTED, pb.ACCEPTED, pb.BUSY]
    until(lambda: rounds.task_for("cyd").step == pb.CONSISTENCY, PATIENCE_S)
    noted = rounds.book.current.accepted["cyd"]
    assert noted.sha256 == partners.input_sha256("cyd")
    assert noted.sequence > 0
    assert partners.send_input("cyd") == pb.DUPLICATE
    rounds.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()


def test_too_many_that_cheat_with_their_keys_end_the_round_at_once(rounds):
    collecting = Collecting(rounds, CALL._replace(max_deadlines=5))
    partners = Partners(rounds)
    unusable = Advertisement(encryption_key=bytes(32), masking_key=bytes(32))
    message = partners.sessions["ada"]._signed(ADVERTISEMENT, unusable)
    assert answered(rounds, "ada", message) == pb.CONFLICT
    with pytest.raises(TooFewClientsError, match=r"needs 3 partners; 2 .*bob, cyd"):
        collecting.done()
    assert rounds.book.counts["collecting"] == 1
