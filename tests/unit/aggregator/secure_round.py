"""A masked round of three partners and five words, without TLS or a network."""

import hashlib

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.secure_terms import SecureTerms
from fedtrain.secagg import masks
from fedtrain.secagg.answered import RememberedRounds
from fedtrain.secagg.approval import Approval
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.parameters import parameters_for
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import ArraySpec
from tests.unit.aggregator.light_round import PLAN_SHA256, call, send, until

NAMES = ("ada", "bob", "cyd")
WORDS = 5
PATIENCE_S = 120.0
OPERATOR = Ed25519PrivateKey.generate()
IDENTITIES = {name: Ed25519PrivateKey.generate() for name in NAMES}
KEYS = {name: key.public_key().public_bytes_raw() for name, key in IDENTITIES.items()}
TERMS = SecureTerms(parameters_for(3), KEYS, OPERATOR, bytes.fromhex(PLAN_SHA256))
CALL = call(
    NAMES,
    contribution=(ArraySpec((WORDS,), "uint32"),),
    secure=TERMS,
    least=3,
    deadline_s=1000.0,  # no partner is lost by a slow machine
)


def session_of(rounds, name):
    """An honest client in the session that is open."""
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
    return ClientSession(
        rounds.task_for(name).step_message,
        client_id=name,
        identity=IDENTITIES[name],
        approval=approval,
        answered=RememberedRounds(),
    )


def answered(rounds, name, content, *, round_number=0, **changes):
    """What is told to a client that sends ``content``; to KEYS, if not changed."""
    values = {
        "step": pb.KEYS,
        "kind": pb.TRAIN,
        "num_bytes": len(content),
        "sha256": hashlib.sha256(content).digest(),
        "plan_sha256": bytes.fromhex(PLAN_SHA256),
    }
    header = pb.SubmitHeader(**{**values, **changes})
    return send(rounds, name, header, content, round_number)


class Partners:
    """All three, who contribute 1, 2 and 3 in each word."""

    def __init__(self, rounds):
        self._rounds = rounds
        until(lambda: rounds.awaited == NAMES, PATIENCE_S)
        self.sessions = {name: session_of(rounds, name) for name in NAMES}
        task = rounds.task_for(NAMES[0])
        self._of = {"round_number": task.round_number, "attempt": task.attempt}
        self.inputs = {}

    def answer(self, step, names=NAMES):
        """What each was told to its answer to ``step``, once it was asked."""
        return [self._answer(name, step) for name in names]

    def send_input(self, name):
        """Sends a masked contribution; the same one if it is sent again."""
        message, content = self.inputs[name]
        sent = {"step": pb.INPUT, "step_message": message, **self._of}
        return answered(self._rounds, name, content, **sent)

    def input_sha256(self, name):
        return hashlib.sha256(self.inputs[name][1]).hexdigest()

    def _answer(self, name, step):
        until(lambda: self._rounds.task_for(name).step == step, PATIENCE_S)
        message = self._rounds.task_for(name).step_message
        session = self.sessions[name]
        if step == pb.INPUT:
            session.hold_shares(message)
            vector = np.full(WORDS, 1 + NAMES.index(name), np.uint32)
            announced = session.mask(vector)
            self.inputs[name] = announced, b"".join(masks.content(vector))
            return self.send_input(name)
        content = {
            pb.KEYS: lambda _: session.advertisement(),
            pb.SHARES: session.share_keys,
            pb.CONSISTENCY: session.confirm,
            pb.UNMASKING: session.unmask,
        }[step](message)
        return answered(self._rounds, name, content, step=step, **self._of)
