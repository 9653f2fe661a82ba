"""Answers to steps of secure aggregation that are not what was asked for."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.rounds import RunStoppedError
from aggregator.secure_terms import SecureTerms
from fedtrain.core.errors import TooFewClientsError
from fedtrain.secagg.answered import RememberedRounds
from fedtrain.secagg.approval import Approval
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.parameters import parameters_for
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.decoding import MOST_MESSAGE_BYTES
from tests.unit.aggregator.light_round import (
    PLAN_SHA256,
    Collecting,
    call,
    opened,
    send,
    until,
)

NAMES = ("ada", "bob", "cyd")
WORDS = 5
OPERATOR = Ed25519PrivateKey.generate()
IDENTITIES = {name: Ed25519PrivateKey.generate() for name in NAMES}
KEYS = {name: key.public_key().public_bytes_raw() for name, key in IDENTITIES.items()}
TERMS = SecureTerms(parameters_for(3), KEYS, OPERATOR, bytes.fromhex(PLAN_SHA256))
CALL = call(NAMES, contribution=(ArraySpec((WORDS,), "uint32"),), secure=TERMS, least=3)


@pytest.fixture
def rounds(tmp_path):
    """A round that waits for the keys of all."""
    journal, found = opened(tmp_path)
    collecting = Collecting(found, CALL)
    until(lambda: found.awaited == NAMES)
    yield found
    found.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    journal.close()


def advertisement(rounds, name):
    """What an honest client answers to its task."""
    agreed = TERMS.parameters
    approval = Approval(
        operator_key=OPERATOR.public_key(),
        plan_sha256=bytes.fromhex(PLAN_SHA256),
        pinned_keys=KEYS,
        vector_length=WORDS,
        least_clients=3,
        least_colluding=agreed.num_colluding,
        least_honest_survivors=agreed.num_honest_survivors,
    )
    session = ClientSession(
        rounds.task_for(name).step_message,
        client_id=name,
        identity=IDENTITIES[name],
        approval=approval,
        answered=RememberedRounds(),
    )
    return session.advertisement()


def answered(rounds, name, content, **changes):
    values = {
        "step": pb.KEYS,
        "kind": pb.TRAIN,
        "num_bytes": len(content),
        "sha256": hashlib.sha256(content).digest(),
        "plan_sha256": bytes.fromhex(PLAN_SHA256),
    }
    return send(rounds, name, pb.SubmitHeader(**{**values, **changes}), content)


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
    until(lambda: found.awaited == NAMES)
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
