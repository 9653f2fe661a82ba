"""Attacks on steps 2 to 4: who is in the sum, and what is opened."""

import numpy as np
import pytest
from stage import LENGTH, NAMES, Stage

from fedtrain.core.errors import ConfigError, TooFewClientsError, WireError
from fedtrain.secagg import masks
from fedtrain.secagg.blame import Blame, BreachError, UnauthenticError
from fedtrain.secagg.envelopes import encoded, parsed
from fedtrain.secagg.messages_pb2 import (
    SURVIVORS,
    UNMASK,
    OpenedShare,
    Survivors,
    Unmask,
)
from fedtrain.secagg.server import LateError


def refused(call, message, match, suspects=("",), *, proven=True):
    with pytest.raises(BreachError, match=match) as caught:
        call(message)
    assert caught.value.blame == Blame(
        tuple(suspects), caught.value.blame.reason, proven
    )


@pytest.fixture
def stage():
    return Stage()


def test_a_second_vector_is_not_masked_with_the_same_masks(stage):
    client = stage.with_shares_held().clients["ada"]
    client.mask(stage.vectors["ada"])
    with pytest.raises(ConfigError, match="masks one vector"):
        client.mask(stage.vectors["bob"])


def test_a_vector_is_not_masked_before_the_shares_came(stage):
    client = stage.with_deliveries().clients["ada"]
    with pytest.raises(ConfigError, match="masks one vector"):
        client.mask(stage.vectors["ada"])


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(LENGTH - 1, np.uint32),
        np.zeros(LENGTH, np.int64),
        np.zeros((1, LENGTH), np.uint32),
        np.zeros(2 * LENGTH, np.uint32)[::2],
    ],
)
def test_what_is_no_vector_of_the_roster_is_not_masked(stage, vector):
    client = stage.with_shares_held().clients["ada"]
    with pytest.raises(ConfigError, match="vector must be"):
        client.mask(vector)
    assert client.mask(stage.vectors["ada"])


def test_a_client_sends_two_masked_inputs(stage):
    stage.with_shares_held().send_input("ada")
    other = stage.input_message("ada", stage.vectors["ada"])
    receive = stage.server.receive_input
    refused(lambda m: receive(m, ()), other, "differ", ["ada"])


def test_a_masked_input_altered_on_its_way_is_left_out_and_may_come_again(stage):
    vector = stage.with_shares_held().vectors["ada"].copy()
    message = stage.clients["ada"].mask(vector)
    altered = vector ^ 1
    receive = stage.server.receive_input
    refused(
        lambda m: receive(m, masks.content(altered)),
        message,
        "altered",
        ["ada"],
        proven=False,
    )
    receive(message, masks.content(vector))
    for name in NAMES[1:]:
        stage.send_input(name)
    np.testing.assert_array_equal(stage.closed().with_sum(), stage.total())


@pytest.mark.parametrize("num_words", [LENGTH - 1, LENGTH + 1])
def test_a_masked_input_of_another_length_is_left_out(stage, num_words):
    vector = np.zeros(num_words, np.uint32)
    message = stage.with_shares_held().input_message("ada", vector)
    with pytest.raises(WireError, match="bytes of a vector arrived"):
        stage.server.receive_input(message, masks.content(vector))
    assert stage.server.survivors == ()


def test_a_client_that_dealt_no_shares_sends_an_input(stage):
    del stage.with_deals().deals["dan"]
    stage.with_deliveries()
    message = stage.input_message("dan", stage.vectors["dan"])
    receive = stage.server.receive_input
    refused(
        lambda m: receive(m, masks.content(stage.vectors["dan"])),
        message,
        "dealt no shares",
        ["dan"],
    )


def test_too_few_inputs_end_the_session(stage):
    stage.with_shares_held()
    for name in NAMES[:2]:
        stage.send_input(name)
    with pytest.raises(TooFewClientsError, match="2 of 4"):
        stage.closed()
    with pytest.raises(LateError):
        stage.send_input("cyd")


def test_an_input_after_its_step_is_late_and_not_in_the_sum(stage):
    stage.with_inputs(lost=["dan"])
    with pytest.raises(LateError):
        stage.send_input("dan")
    total = stage.with_sum()
    np.testing.assert_array_equal(total, stage.total(NAMES[:3]))


def test_a_lost_clients_late_input_is_still_under_its_own_mask(stage):
    client, session = (
        stage.with_shares_held().clients["dan"],
        stage.server.roster.session,
    )
    seed, pairs = client._secrets.seed, dict(client._pairs)
    client.mask(late := stage.vectors["dan"].copy())
    for peer in NAMES[:3]:
        # What the aggregator can rebuild once dan's masking key is opened.
        stream = masks.pair_mask(
            pairs[peer].masking, session=session, pair=("dan", peer)
        )
        masks.apply(late, added=[stream], removed=[])
    assert not np.array_equal(late, stage.vectors["dan"])
    own = masks.self_mask(seed, session=session, client_id="dan")
    masks.apply(late, added=[], removed=[own])
    np.testing.assert_array_equal(late, stage.vectors["dan"])


def test_a_client_is_missing_among_the_survivors_it_shall_confirm(stage):
    stage.with_inputs(lost=["dan"])
    message = stage.survivors("bob", "cyd", "dan")
    refused(stage.clients["ada"].confirm, message, "missing")


def test_too_few_survivors(stage):
    message = stage.with_inputs().survivors("ada", "bob")
    refused(stage.clients["ada"].confirm, message, "2 survivors are fewer than 3")


def test_a_survivor_is_named_twice_to_reach_the_threshold(stage):
    message = stage.with_inputs().survivors("ada", "ada", "bob")
    refused(stage.clients["ada"].confirm, message, "named twice")


def test_a_survivor_whose_shares_did_not_come(stage):
    del stage.with_deals().deals["dan"]
    stage.with_deliveries()
    for name in NAMES[:3]:
        stage.clients[name].hold_shares(stage.deliveries[name])
        stage.send_input(name)
    message = stage.closed().survivors("ada", "bob", "cyd", "dan")
    refused(stage.clients["ada"].confirm, message, "dealt no shares")
    body = Survivors.FromString(parsed(stage.announced).body)
    body.shared.append("dan")
    confirm = stage.clients["bob"].confirm
    refused(confirm, stage.announcement(body), "did not come here")


def test_a_dealer_is_left_out_whose_masks_are_in_the_input(stage):
    body = Survivors.FromString(parsed(stage.with_inputs().announced).body)
    body.shared.remove("dan")
    body.survivors.remove("dan")
    message = stage.announcement(body)
    refused(stage.clients["ada"].confirm, message, "did not come here")


def test_others_were_dealt_other_shares(stage):
    message = stage.with_inputs().survivors(*NAMES, transcript_sha256=bytes(32))
    refused(stage.clients["ada"].confirm, message, "other shares")


def test_survivors_are_not_confirmed_before_the_input_left(stage):
    announced = Stage(stage.network).with_inputs().announced
    with pytest.raises(UnauthenticError, match="another session"):
        stage.with_shares_held().clients["ada"].confirm(announced)
    body = Survivors.FromString(parsed(announced).body)
    confirm = stage.clients["ada"].confirm
    refused(confirm, stage.announcement(body), "out of its turn")


def test_the_same_client_as_survivor_and_then_as_lost(stage):
    client = stage.with_inputs().clients["ada"]
    signature = client.confirm(stage.announced)
    assert client.confirm(stage.announced) == signature
    other = stage.survivors("ada", "bob", "cyd")
    refused(client.confirm, other, "twice")
    # It has left: nothing is opened any more.
    signatures = [stage.signature(name, stage.announced) for name in NAMES]
    refused(client.unmask, stage.asked(*signatures), "out of its turn")


def test_different_clients_are_told_different_survivors(stage):
    stage.with_inputs()
    without_dan = stage.survivors("ada", "bob", "cyd")
    stage.clients["ada"].confirm(stage.announced)
    theirs = [stage.signature(name, without_dan) for name in ("bob", "cyd")]
    own = stage.signature("ada", stage.announced)
    unmask = stage.clients["ada"].unmask
    refused(
        unmask, stage.asked(own, *theirs), "other survivors", ["", "bob"], proven=False
    )


def test_survivors_without_enough_signatures(stage):
    stage.with_signatures()
    signatures = [parsed(stage.signatures[name]) for name in ("ada", "bob")]
    refused(stage.clients["ada"].unmask, stage.asked(*signatures), "fewer than 3")


def test_one_signature_counted_twice(stage):
    stage.with_signatures()
    ada, bob = (parsed(stage.signatures[name]) for name in ("ada", "bob"))
    refused(stage.clients["ada"].unmask, stage.asked(ada, bob, bob), "distinct")


def test_the_signature_of_a_lost_client_counts_for_nothing(stage):
    stage.with_signatures(lost=["dan"])
    names = ("ada", "bob", "dan")
    signatures = [stage.signature(name, stage.announced) for name in names]
    refused(stage.clients["ada"].unmask, stage.asked(*signatures), "distinct survivors")


def test_a_forged_signature(stage):
    stage.with_signatures()
    signatures = [parsed(stage.signatures[name]) for name in NAMES[:3]]
    signatures[1].signature = signatures[2].signature
    refused(stage.clients["ada"].unmask, stage.asked(*signatures), "signature")


def test_signatures_of_an_earlier_session(stage):
    earlier = Stage(stage.network).with_signatures()
    signatures = [parsed(earlier.signatures[name]) for name in NAMES]
    request = stage.with_signatures().asked(*signatures)
    refused(stage.clients["ada"].unmask, request, "another session")


def test_shares_are_not_opened_before_the_survivors_are_confirmed(stage):
    stage.with_inputs()
    signatures = [stage.signature(name, stage.announced) for name in NAMES]
    unmask = stage.clients["ada"].unmask
    refused(unmask, stage.asked(*signatures), "out of its turn")


def test_after_its_answer_a_client_opens_nothing_else(stage):
    client = stage.with_signatures().clients["ada"]
    answer = client.unmask(stage.request)
    assert client.unmask(stage.request) == answer
    others = [parsed(stage.signatures[name]) for name in ("ada", "cyd", "dan")]
    refused(client.unmask, stage.asked(*others), "out of its turn")
    with pytest.raises(ConfigError, match="masks one vector"):
        client.mask(stage.vectors["ada"])


def test_an_answer_opens_one_kind_of_share_of_each_dealer(stage):
    stage.with_answers(lost=["dan"])
    for message in stage.answers.values():
        body = Unmask.FromString(parsed(message).body)
        assert [share.dealer for share in body.seeds] == ["ada", "bob", "cyd"]
        assert [share.dealer for share in body.keys] == ["dan"]


def test_a_message_of_the_network_ends_nothing(stage):
    client = stage.with_signatures().clients["ada"]
    for place in range(0, len(stage.request), 101):
        altered = bytearray(stage.request)
        altered[place] ^= 4
        with pytest.raises(UnauthenticError):
            client.unmask(bytes(altered))
    with pytest.raises(UnauthenticError):
        client.unmask(stage.request + bytes(2**20))
    assert client.unmask(stage.request)


def test_a_client_signs_other_survivors(stage):
    stage.with_inputs()
    other = stage.signature("bob", stage.survivors("ada", "bob", "cyd"))
    receive = stage.server.receive_consistency
    refused(receive, encoded(other), "other survivors", ["", "bob"], proven=False)


def test_a_lost_client_signs_survivors(stage):
    stage.with_inputs(lost=["dan"])
    other = stage.signature("dan", stage.announced)
    with pytest.raises(UnauthenticError, match="not among the survivors"):
        stage.server.receive_consistency(encoded(other))


def test_too_few_signatures_or_answers_end_the_session(stage):
    stage.with_inputs()
    for name in NAMES[:2]:
        signature = stage.clients[name].confirm(stage.announced)
        stage.server.receive_consistency(signature)
    with pytest.raises(TooFewClientsError, match="CONSISTENCY"):
        stage.server.close_consistency()
    stage = Stage(stage.network).with_answers()
    for name in NAMES[:2]:
        stage.server.receive_unmask(stage.answers[name])
    with pytest.raises(TooFewClientsError, match="UNMASK"):
        stage.server.close_unmask()


def refused_answer(stage, forged, match, holder="bob"):
    """One bad answer is left out and its holder convicted; the sum stays right."""
    refused(stage.server.receive_unmask, forged, match, [holder])
    for name in NAMES[:3]:
        if name != holder:
            stage.server.receive_unmask(stage.answers[name])
    if "dan" in stage.answers:
        stage.server.receive_unmask(stage.answers["dan"])
    return stage.server.close_unmask()


@pytest.mark.parametrize("field", ["value", "nonce"])
def test_a_holder_opens_a_wrong_share(stage, field):
    def wrong(answer):
        setattr(answer.seeds[2], field, bytes(32))

    forged = stage.with_answers().changed_answer("bob", wrong)
    total = refused_answer(stage, forged, "share that cyd did not deal")
    np.testing.assert_array_equal(total, stage.total())


def test_a_holder_opens_the_key_of_a_survivor(stage):
    def both(answer):
        answer.keys.append(OpenedShare(dealer="cyd"))

    forged = stage.with_answers().changed_answer("bob", both)
    total = refused_answer(stage, forged, "other shares than were asked")
    np.testing.assert_array_equal(total, stage.total())


def test_a_holder_opens_too_little(stage):
    forged = stage.with_answers().changed_answer("bob", lambda a: a.seeds.pop())
    refused_answer(stage, forged, "other shares than were asked")


def test_a_holder_sends_the_shares_of_another(stage):
    body = Unmask.FromString(parsed(stage.with_answers().answers["cyd"]).body)
    forged = stage.by_client("bob", UNMASK, body)
    refused_answer(stage, forged, "did not deal")


def test_a_client_that_is_no_survivor_opens_shares(stage):
    stage.with_answers(lost=["dan"])
    body = Unmask.FromString(parsed(stage.answers["ada"]).body)
    forged = stage.by_client("dan", UNMASK, body)
    refused(stage.server.receive_unmask, forged, "no survivor", ["dan"])


def test_what_its_signer_could_not_have_meant_convicts_it(stage):
    stage.with_answers()
    message = stage.by_client("bob", UNMASK, parsed(stage.answers["cyd"]))
    refused(stage.server.receive_unmask, message, "Unmask", ["bob"])


def test_a_relayed_answer_is_not_its_relays(stage):
    envelope = parsed(stage.with_answers().answers["cyd"])
    envelope.sender = "bob"
    with pytest.raises(UnauthenticError, match="signature"):
        stage.server.receive_unmask(encoded(envelope))


def test_an_operator_that_signs_under_a_clients_name(stage):
    body = Survivors.FromString(parsed(stage.with_inputs().announced).body)
    forged = stage.signed(SURVIVORS, body, "bob", stage.network.operator_key)
    refused(stage.clients["ada"].confirm, forged, "another name")


def test_an_answer_is_not_taken_for_a_signature(stage):
    stage.with_answers()
    with pytest.raises(UnauthenticError, match="kind"):
        stage.server.receive_consistency(stage.answers["ada"])
    with pytest.raises(UnauthenticError, match="kind"):
        stage.server.receive_unmask(stage.signatures["ada"])


def test_what_is_no_message_is_left_out(stage):
    server = stage.with_inputs().server
    for receive in (
        server.receive_keys,
        server.receive_shares,
        server.receive_complaint,
        server.receive_consistency,
        server.receive_unmask,
        lambda message: server.receive_input(message, ()),
    ):
        for message in (b"no message", bytes(2**20 + 1), stage.announced + b"0"):
            with pytest.raises(UnauthenticError):
                receive(message)
    np.testing.assert_array_equal(stage.with_sum(), stage.total())


def test_no_step_is_closed_before_its_turn_or_twice(stage):
    with pytest.raises(LateError, match="KEYS, not SHARES"):
        stage.server.close_shares()
    stage.with_keys()
    with pytest.raises(LateError, match="SHARES, not KEYS"):
        stage.server.close_keys()
    stage.with_sum()
    with pytest.raises(LateError, match="OVER"):
        stage.server.close_unmask()
