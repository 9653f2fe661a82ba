"""Whatever an enrolled side signs, the other refuses it in order and goes on."""

import numpy as np
import pytest
from stage import NAMES, Stage

from fedtrain.core.errors import WireError
from fedtrain.secagg.blame import BreachError, UnauthenticError
from fedtrain.secagg.envelopes import encoded, parsed
from fedtrain.secagg.messages_pb2 import Deal, DealUpload

NUM_CHANGES = 60


def changed_bodies(body, seed):
    """The body with bytes flipped, taken out, put in or doubled."""
    draw = np.random.default_rng(seed)
    for _ in range(NUM_CHANGES):
        start, end = sorted(draw.integers(len(body) + 1, size=2))
        part = bytes(draw.integers(256, size=int(draw.integers(1, 9)), dtype=np.uint8))
        yield [
            body[:start] + part + body[start + len(part) :],
            body[:start] + body[end:],
            body[:start] + part + body[start:],
            body[:end] + body[start:],
        ][draw.integers(4)]


def signed(stage, envelope, body):
    """The envelope with another body, signed by the same sender."""
    key = stage.network.identities.get(envelope.sender, stage.network.operator_key)

    class Body:
        def SerializeToString(self, deterministic):  # noqa: N802 - protobuf's name
            return body

    return stage.signed(envelope.kind, Body(), envelope.sender, key)


@pytest.mark.parametrize(
    ("step", "message", "respond"),
    [
        ("with_keys", lambda s: s.keys, "_share_keys"),
        ("with_deliveries", lambda s: s.deliveries["ada"], "_hold_shares"),
        ("with_inputs", lambda s: s.announced, "_confirm"),
        ("with_signatures", lambda s: s.request, "_unmask"),
    ],
)
def test_a_client_refuses_every_altered_body(step, message, respond):
    stage = getattr(Stage(), step)()
    envelope = parsed(message(stage))
    for body in changed_bodies(envelope.body, seed=len(respond)):
        if body != envelope.body:
            altered = parsed(signed(stage, envelope, body))
            with pytest.raises((BreachError, UnauthenticError)):
                getattr(stage.clients["ada"], respond)(altered)
    assert getattr(stage.clients["ada"], respond)(envelope) is not None


def test_the_aggregator_refuses_every_altered_answer():
    stage = Stage().with_answers()
    envelope = parsed(stage.answers["bob"])
    for body in changed_bodies(envelope.body, seed=1):
        if body != envelope.body:
            with pytest.raises(BreachError):
                stage.server.receive_unmask(signed(stage, envelope, body))
    # Sixty bad messages of one kind, and no more names than one, proven and not.
    assert {blame.suspects for blame in stage.server.blames} == {("bob",)}
    assert len(stage.server.blames) <= 2
    np.testing.assert_array_equal(stage.with_sum_of_answers(), stage.total())


def test_a_deal_is_refused_or_has_other_commitments_for_its_holders_to_find():
    stage = Stage().with_deals()
    upload = DealUpload.FromString(stage.deals["bob"])
    envelope, as_dealt = upload.deal, Deal.FromString(upload.deal.body)
    for body in changed_bodies(envelope.body, seed=2):
        altered = parsed(signed(stage, envelope, body))
        message = encoded(DealUpload(deal=altered, boxes=upload.boxes))
        try:
            stage.server.receive_shares(message)
        except BreachError:
            continue
        break
    taken = stage.server._deals.get("bob", as_dealt)
    for found, dealt in zip(taken.dealt, as_dealt.dealt, strict=True):
        assert (found.holder, found.box_sha256) == (dealt.holder, dealt.box_sha256)
    assert stage.server.blames


def test_keys_altered_by_their_owner_are_refused_or_make_no_sum_wrong():
    stage = Stage()
    envelope = parsed(stage.clients["dan"].advertisement())
    for body in changed_bodies(envelope.body, seed=3):
        altered = signed(stage, envelope, body)
        try:
            stage.server.receive_keys(altered)
        except WireError:
            continue
        break
    for name in NAMES[:3]:
        stage.server.receive_keys(stage.clients[name].advertisement())
    stage.keys = stage.server.close_keys()
    stage.deals = {n: stage.clients[n].share_keys(stage.keys) for n in NAMES[:3]}
    with pytest.raises(BreachError, match="own keys"):
        stage.clients["dan"].share_keys(stage.keys)
    for message in stage.deals.values():
        stage.server.receive_shares(message)
    for name, delivery in stage.server.close_shares().items():
        stage.clients[name].hold_shares(delivery)
        stage.send_input(name)
    np.testing.assert_array_equal(stage.closed().with_sum(), stage.total(NAMES[:3]))
