"""Answers to steps of secure aggregation that are not what was asked for."""

import pytest

from aggregator.rounds import RunStoppedError
from fedtrain.core.errors import TooFewClientsError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import MOST_MESSAGE_BYTES
from tests.unit.aggregator.light_round import Collecting, opened, until
from tests.unit.aggregator.secure_round import (
    CALL,
    NAMES,
    PATIENCE_S,
    TERMS,
    WORDS,
    Partners,
    answered,
    session_of,
)


@pytest.fixture
def rounds(tmp_path):
    """A round that waits for the keys of all."""
    journal, found = opened(tmp_path)
    collecting = Collecting(found, CALL)
    until(lambda: found.awaited == NAMES, PATIENCE_S)
    yield found
    found.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    journal.close()


def advertisement(rounds, name):
    """What an honest client answers to its task."""
    return session_of(rounds, name).advertisement()


def test_a_task_has_the_step_and_who_is_not_asked_waits(rounds):
    task = rounds.task_for("ada")
    assert (task.kind, task.step) == (pb.TRAIN, pb.KEYS)
    assert rounds.task_for("eve").kind == pb.WAIT
    assert answered(rounds, "ada", advertisement(rounds, "ada")) == pb.ACCEPTED
    assert rounds.task_for("ada").kind == pb.WAIT
    assert rounds.awaited == ("bob", "cyd")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"step": pb.NO_STEP}, pb.MALFORMED),
        ({"step": pb.SHARES}, pb.CONFLICT),
        ({"step": pb.COMPLAINT}, pb.CONFLICT),
        ({"sha256": bytes(32)}, pb.MALFORMED),
        ({"num_bytes": 1}, pb.MALFORMED),
        ({"num_bytes": MOST_MESSAGE_BYTES + 1}, pb.WRONG_SHAPE),
        ({"plan_sha256": bytes(32)}, pb.WRONG_PLAN),
        ({"attempt": 1}, pb.LATE),
    ],
)
def test_an_answer_that_was_not_asked_for_changes_nothing(rounds, changes, code):
    assert answered(rounds, "ada", advertisement(rounds, "ada"), **changes) == code
    assert rounds.awaited == NAMES


def test_one_clients_answer_is_not_anothers(rounds):
    of_bob = advertisement(rounds, "bob")
    answered(rounds, "ada", of_bob)
    assert "ada" in rounds.awaited
    assert answered(rounds, "bob", of_bob) == pb.ACCEPTED
    assert rounds.awaited == ("ada", "cyd")
    assert answered(rounds, "ada", b"garbage") == pb.CONFLICT
    assert answered(rounds, "ada", advertisement(rounds, "ada")) == pb.ACCEPTED


def test_after_a_restart_nothing_is_taken_of_a_session_that_is_gone(tmp_path):
    journal, found = opened(tmp_path)
    collecting = Collecting(found, CALL)
    until(lambda: found.awaited == NAMES, PATIENCE_S)
    found.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    assert found.task_for("ada").kind == pb.WAIT
    words = bytes(4 * WORDS)
    codes = [answered(found, "ada", words, step=pb.INPUT) for _ in range(2)]
    assert codes == [pb.LATE, pb.LATE]  # the second is not told that it is BUSY
    assert answered(found, "ada", words) == pb.LATE
    journal.close()


def test_too_few_partners_that_keep_to_the_protocol_are_named(rounds):
    state = rounds.book.current
    with pytest.raises(TooFewClientsError, match="needs 3 partners; 2"):
        TERMS.roster(state, without={"bob"})


def test_an_input_that_comes_while_its_attempt_is_aborted_is_late(rounds, monkeypatch):
    partners = Partners(rounds)
    for step in (pb.KEYS, pb.SHARES):
        partners.answer(step)
    reception = rounds._reception._secure
    note = reception._note

    def aborts_before(state, body):
        with rounds.book.changed:
            rounds.book.record([rounds.book.draft(state, "aborted", {"why": "test"})])
        note(state, body)

    monkeypatch.setattr(reception, "_note", aborts_before)
    assert partners.answer(pb.INPUT, ["ada"]) == [pb.LATE]


def test_the_input_of_one_client_is_not_taken_from_another(rounds):
    partners = Partners(rounds)
    for step in (pb.KEYS, pb.SHARES):
        partners.answer(step)
    assert partners.answer(pb.INPUT, ["ada"]) == [pb.ACCEPTED]
    (message, content) = partners.inputs["ada"]
    code = answered(rounds, "bob", content, step=pb.INPUT, step_message=message)
    assert code == pb.CONFLICT
    assert rounds.book.current.survivors == ("ada",)
