"""Attacks on steps 0 and 1: keys put in another's place, shares that fit nothing."""

from functools import partial

import numpy as np
import pytest
from stage import NAMES, Stage

from fedtrain.core.errors import ConfigError
from fedtrain.secagg import shamir
from fedtrain.secagg.blame import Blame, BreachError, UnauthenticError
from fedtrain.secagg.dealing import (
    MASKING_KEY,
    SEED,
    BoxRoute,
    HeldShares,
    Share,
    secret_commitment,
    share_commitment,
)
from fedtrain.secagg.envelopes import encoded, parsed, sha256
from fedtrain.secagg.messages_pb2 import (
    ADVERTISEMENT,
    COMPLAINT,
    DELIVERY,
    KEYS,
    Advertisement,
    Complaint,
    Deal,
    DealUpload,
    Delivered,
    Delivery,
    Keys,
)
from fedtrain.secagg.server import LateError

SMALL_ORDER = bytes(32)


def refused(call, message, match, suspects=("",), *, proven=True):
    """The client refuses, names ``suspects``, and has nothing more to say."""
    with pytest.raises(BreachError, match=match) as caught:
        call(message)
    assert caught.value.blame == Blame(
        tuple(suspects), caught.value.blame.reason, proven
    )
    return caught.value


def keys_with(stage, change):
    """The keys of all after ``change(list)``, signed by the aggregator."""
    advertisements = list(Keys.FromString(parsed(stage.keys).body).advertisements)
    change(advertisements)
    return stage.by_operator(KEYS, Keys(advertisements=advertisements))


def delivery_with(stage, name, change):
    """One client's shares after ``change(list)``, signed by the aggregator."""
    deals = list(Delivery.FromString(parsed(stage.deliveries[name]).body).deals)
    change(deals)
    return stage.by_operator(DELIVERY, Delivery(deals=deals))


def advertisement(stage, name, encryption, masking):
    body = Advertisement(encryption_key=encryption, masking_key=masking)
    return stage.by_client(name, ADVERTISEMENT, body)


def keys_of(message):
    body = Advertisement.FromString(parsed(message).body)
    return body.encryption_key, body.masking_key


@pytest.fixture
def stage():
    return Stage().with_keys()


def test_the_aggregator_puts_its_own_key_in_a_clients_place(stage):
    def substitute(advertisements):
        body = Advertisement.FromString(advertisements[1].body)
        body.masking_key = keys_of(stage.advertised["cyd"])[0]
        advertisements[1].body = encoded(body)

    message = keys_with(stage, substitute)
    refused(stage.clients["ada"].share_keys, message, "signature")


def test_the_aggregator_alters_or_leaves_out_a_clients_own_keys(stage):
    older = Stage(stage.network).clients["ada"].advertisement()

    def replace(advertisements):
        advertisements[0] = parsed(older)

    for name, change in (("ada", replace), ("bob", lambda each: each.pop(1))):
        message = keys_with(stage, change)
        refused(stage.clients[name].share_keys, message, "own keys")


def test_the_aggregator_passes_on_too_few_keys(stage):
    message = keys_with(stage, lambda each: each.__delitem__(slice(2, 4)))
    refused(stage.clients["ada"].share_keys, message, "fewer than 3")


def test_the_aggregator_counts_one_client_twice(stage):
    message = keys_with(stage, lambda each: each.insert(1, each[0]))
    refused(stage.clients["ada"].share_keys, message, "distinct")


def test_one_key_stands_for_two_clients(stage):
    copied = advertisement(stage, "dan", *keys_of(stage.advertised["cyd"]))

    def copy(advertisements):
        advertisements[3] = parsed(copied)

    refused(stage.clients["ada"].share_keys, keys_with(stage, copy), "twice")
    fresh = Stage(stage.network)
    first = fresh.clients["cyd"].advertisement()
    fresh.server.receive_keys(first)
    second = advertisement(fresh, "dan", *keys_of(first))
    refused(fresh.server.receive_keys, second, "before", ["dan"], proven=False)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("key", [SMALL_ORDER, b"short"])
def test_a_client_advertises_a_key_whose_secrets_all_know(stage, place, key):
    fresh = Stage(stage.network)
    own = list(keys_of(fresh.clients["bob"].advertisement()))
    own[place] = key
    weak = advertisement(fresh, "bob", *own)
    refused(fresh.server.receive_keys, weak, "no X25519", ["bob"])

    def replace(advertisements):
        advertisements[1] = parsed(advertisement(stage, "bob", *own))

    message = keys_with(stage, replace)
    refused(stage.clients["ada"].share_keys, message, "no X25519", ["bob"])


def test_the_network_replays_keys_of_another_session(stage):
    earlier = stage.advertised["bob"]
    with pytest.raises(UnauthenticError, match="another session"):
        Stage(stage.network).server.receive_keys(earlier)


def test_the_network_replays_a_message_as_one_of_another_step(stage):
    envelope = parsed(stage.advertised["bob"])
    with pytest.raises(UnauthenticError, match="kind"):
        stage.server.receive_consistency(encoded(envelope))


def test_a_stranger_sends_keys(stage):
    fresh = Stage()
    fresh.network.identities["eve"] = stage.network.identities["bob"]
    body = Advertisement(encryption_key=bytes(32), masking_key=bytes(32))
    with pytest.raises(UnauthenticError, match="not in the roster"):
        fresh.server.receive_keys(fresh.by_client("eve", ADVERTISEMENT, body))


def test_a_client_poses_as_another(stage):
    envelope = parsed(Stage(stage.network).clients["bob"].advertisement())
    envelope.session = stage.server.roster.session
    envelope.sender = "ada"
    with pytest.raises(UnauthenticError, match="signature"):
        stage.server.receive_keys(encoded(envelope))


def test_a_client_sends_two_different_keys(stage):
    fresh = Stage(stage.network)
    first = fresh.clients["bob"].advertisement()
    fresh.server.receive_keys(first)
    fresh.server.receive_keys(first)
    second = advertisement(fresh, "bob", *reversed(keys_of(first)))
    refused(fresh.server.receive_keys, second, "differ", ["bob"])


def test_the_aggregator_asks_for_shares_a_second_time_with_other_keys(stage):
    client = stage.clients["ada"]
    first = client.share_keys(stage.keys)
    assert client.share_keys(stage.keys) == first
    refused(client.share_keys, keys_with(stage, lambda each: each.pop()), "twice")


def delivery_of(stage, name, deals):
    """What ``name`` gets of these deals, past the aggregator's own checks."""
    uploads = [DealUpload.FromString(deal) for deal in deals.values()]
    place = NAMES.index(name)
    delivered = [Delivered(deal=up.deal, box=up.boxes[place]) for up in uploads]
    return stage.by_operator(DELIVERY, Delivery(deals=delivered))


def put_in_other_keys_of_dan(stage, advertisements):
    other = advertisement(stage, "dan", *reversed(keys_of(stage.advertised["dan"])))
    advertisements[3] = parsed(other)


def leave_dan_out(stage, advertisements):
    del stage, advertisements[3]


@pytest.mark.parametrize("change", [put_in_other_keys_of_dan, leave_dan_out])
def test_different_clients_are_shown_different_keys(stage, change):
    views = dict.fromkeys(NAMES, stage.keys)
    views["cyd"] = keys_with(stage, partial(change, stage))
    deals = {name: stage.clients[name].share_keys(view) for name, view in views.items()}
    receive = stage.server.receive_shares
    suspects = ["", "cyd"]
    refused(receive, deals["cyd"], "other keys", suspects, proven=False)
    del deals["dan"]
    message = delivery_of(stage, "ada", deals)
    hold = stage.clients["ada"].hold_shares
    refused(hold, message, "other keys", suspects, proven=False)


def test_a_client_leaves_a_holder_out_of_its_deal(stage):
    def leave_out(deal, boxes):
        del deal.dealt[3], boxes[3]

    forged = stage.with_deals().changed_deal("bob", leave_out)
    refused(stage.server.receive_shares, forged, "not to those", ["bob"])


def test_boxes_that_are_not_the_signed_ones_do_not_reach_a_holder(stage):
    upload = DealUpload.FromString(stage.with_deals().deals["bob"])
    upload.boxes[0] = upload.boxes[1]
    receive = stage.server.receive_shares
    refused(receive, encoded(upload), "signed", ["bob"], proven=False)
    receive(stage.deals["bob"])


def test_a_client_deals_without_keys():
    stage = Stage()
    for name in NAMES[:3]:
        stage.server.receive_keys(stage.clients[name].advertisement())
    upload = stage.clients["ada"].share_keys(stage.server.close_keys())
    stage.deals = {"ada": upload}
    copied = stage.changed_deal("ada", lambda deal, boxes: None, signer="dan")
    refused(stage.server.receive_shares, copied, "advertised no keys", ["dan"])


def test_the_aggregator_alters_a_box(stage):
    def alter(deals):
        deals[1].box = deals[1].box[:-1] + bytes([deals[1].box[-1] ^ 1])

    message = delivery_with(stage.with_deliveries(), "ada", alter)
    refused(stage.clients["ada"].hold_shares, message, "box of bob was altered")


def test_the_aggregator_delivers_a_box_meant_for_another(stage):
    def swap(deals):
        theirs = Delivery.FromString(parsed(stage.deliveries["cyd"]).body).deals
        deals[1].box = theirs[1].box

    message = delivery_with(stage.with_deliveries(), "ada", swap)
    refused(stage.clients["ada"].hold_shares, message, "box of bob was altered")


def test_the_aggregator_alters_a_deal(stage):
    def alter(deals):
        body = Deal.FromString(deals[1].deal.body)
        body.dealt[0].seed_commitment = bytes(32)
        deals[1].deal.body = encoded(body)

    message = delivery_with(stage.with_deliveries(), "ada", alter)
    refused(stage.clients["ada"].hold_shares, message, "signature")


def test_the_aggregator_leaves_out_a_clients_own_shares(stage):
    message = delivery_with(stage.with_deliveries(), "ada", lambda each: each.pop(0))
    refused(stage.clients["ada"].hold_shares, message, "own shares")


def test_the_aggregator_delivers_too_few_shares(stage):
    stage.with_deliveries()
    message = delivery_with(stage, "ada", lambda each: each.__delitem__(slice(2, 4)))
    refused(stage.clients["ada"].hold_shares, message, "fewer than 3")


def test_the_aggregator_delivers_one_dealer_twice(stage):
    stage.with_deliveries()
    message = delivery_with(stage, "ada", lambda each: each.append(each[3]))
    refused(stage.clients["ada"].hold_shares, message, "distinct")


def test_the_network_replays_shares_of_another_session(stage):
    stage.with_deliveries()
    later = Stage(stage.network).with_deals()
    with pytest.raises(UnauthenticError, match="another session"):
        later.clients["ada"].hold_shares(stage.deliveries["ada"])
    later.with_deliveries()


def test_a_client_deals_a_share_it_did_not_commit_to(stage):
    def wrong(deal, boxes):
        deal.dealt[0].seed_commitment = bytes(32)

    stage.with_deals()
    stage.deal_badly("bob", stage.changed_deal("bob", wrong))
    stage.with_deliveries()
    hold = stage.clients["ada"].hold_shares
    suspects = ["bob", "ada"]
    error = refused(
        hold, stage.deliveries["ada"], "not what was signed", suspects, proven=False
    )
    # The aggregator opens the box with the key that the complaint shows, and convicts.
    blame = stage.server.receive_complaint(error.complaint)
    assert (blame.suspects, blame.proven) == (("bob",), True)
    assert stage.server.receive_complaint(error.complaint) == blame
    assert stage.server.blames == [blame]
    # The others go on: they are three, and three are enough.
    for name in NAMES[1:]:
        stage.clients[name].hold_shares(stage.deliveries[name])
        stage.send_input(name)
    total = stage.closed().with_sum()
    np.testing.assert_array_equal(total, stage.total(NAMES[1:]))


def test_a_client_that_complained_sends_nothing_else(stage):
    def alter(deals):
        deals[1].box = bytes(len(deals[1].box))

    client = stage.with_deliveries().clients["ada"]
    message = delivery_with(stage, "ada", alter)
    assert not refused(client.hold_shares, message, "altered").complaint
    with pytest.raises(ConfigError, match="masks one vector"):
        client.mask(stage.vectors["ada"])
    with pytest.raises(BreachError, match="out of its turn"):
        client.hold_shares(stage.deliveries["ada"])


def test_a_box_that_no_key_opens_names_dealer_and_holder(stage):
    def garbage(deal, boxes):
        boxes[0] = bytes(len(boxes[0]))
        deal.dealt[0].box_sha256 = sha256(boxes[0])

    stage.with_deals()
    stage.deal_badly("bob", stage.changed_deal("bob", garbage))
    stage.with_deliveries()
    hold = stage.clients["ada"].hold_shares
    suspects = ["bob", "ada"]
    error = refused(
        hold, stage.deliveries["ada"], "not what was signed", suspects, proven=False
    )
    blame = stage.server.receive_complaint(error.complaint)
    assert (blame.suspects, blame.proven) == (("bob", "ada"), False)


def complaint(stage, name, **changes):
    """A complaint of ``name`` about bob, whose shares are right."""
    delivered = Delivery.FromString(parsed(stage.deliveries[name]).body).deals[1]
    key = stage.clients[name]._pairs["bob"].encryption
    route = BoxRoute(stage.server.roster.session, "bob", name)
    body = Complaint(deal=delivered.deal, box=delivered.box, box_key=route.key(key))
    for field, value in changes.items():
        setattr(body, field, value)
    return stage.by_client(name, COMPLAINT, body)


def test_a_false_complaint_convicts_its_holder(stage):
    message = complaint(stage.with_deliveries(), "ada")
    blame = stage.server.receive_complaint(message)
    assert blame == Blame(("ada",), "its complaint about bob is false", proven=True)


def test_a_complaint_after_its_step_is_late(stage):
    message = complaint(stage.with_shares_held(), "ada")
    for name in NAMES[:3]:
        stage.send_input(name)
    with pytest.raises(LateError, match="no complaints now"):
        stage.closed().server.receive_complaint(message)
    assert stage.server.blames == []


def test_a_complaint_about_another_box_convicts_its_holder(stage):
    message = complaint(stage.with_deliveries(), "ada", box=b"made up")
    assert stage.server.receive_complaint(message).suspects == ("ada",)
    assert stage.server.blames[0].proven


def test_a_complaint_about_an_unsigned_deal_convicts_its_holder(stage):
    stage.with_deliveries()
    body = Complaint(deal=parsed(stage.advertised["bob"]))
    blame = stage.server.receive_complaint(stage.by_client("ada", COMPLAINT, body))
    assert (blame.suspects, blame.proven) == (("ada",), True)


def test_two_deals_signed_by_one_dealer_convict_it(stage):
    stage.with_deals()
    second = stage.changed_deal(
        "bob", lambda deal, boxes: setattr(deal, "seed_commitment", bytes(32))
    )
    stage.with_deliveries()
    body = Complaint(deal=DealUpload.FromString(second).deal)
    blame = stage.server.receive_complaint(stage.by_client("ada", COMPLAINT, body))
    assert blame == Blame(("bob",), "it signed two different deals", proven=True)
    refused(stage.server.receive_shares, second, "differ", ["bob"])


def redealt(stage, name, *, seed=None, masking=None):
    """A deal whose shares are all as committed, of secrets that are not."""
    session = stage.server.roster.session
    points = [stage.server.roster.point(holder) for holder in NAMES]
    pairs = stage.clients[name]._pairs

    def change(deal, boxes):
        own = stage.clients[name]._secrets
        seeds = shamir.split(seed or own.seed, points=points, threshold=3)
        keys = shamir.split(masking or own.masking_bytes, points=points, threshold=3)
        for place, holder in enumerate(NAMES):
            route = BoxRoute(session, name, holder)
            shares = HeldShares(
                Share(seeds[points[place]], bytes(32)),
                Share(keys[points[place]], bytes(32)),
            )
            boxes[place] = route.sealed(route.key(pairs[holder].encryption), shares)
            entry = deal.dealt[place]
            entry.seed_commitment = share_commitment(route, SEED, shares.seed)
            entry.key_commitment = share_commitment(route, MASKING_KEY, shares.key)
            entry.box_sha256 = sha256(boxes[place])
        if masking:
            deal.key_commitment = secret_commitment(session, name, MASKING_KEY, masking)

    return stage.changed_deal(name, change)


def test_a_dealer_whose_shares_give_another_seed_is_convicted_at_the_end(stage):
    stage.with_deals()
    stage.deal_badly("bob", redealt(stage, "bob", seed=bytes(32)))
    refused(lambda _: stage.with_sum(), None, "do not fit", ["bob"])
    assert stage.server.blames[-1].suspects == ("bob",)


def test_a_lost_dealer_that_shared_another_key_than_it_advertised_is_convicted(stage):
    stage.with_deals()
    stage.deal_badly("dan", redealt(stage, "dan", masking=bytes(31) + b"\1"))
    refused(
        lambda _: stage.with_sum(lost=["dan"]),
        None,
        "another key than it advertised",
        ["dan"],
    )


def test_a_box_too_long_for_its_holders_message_convicts_its_dealer(stage):
    def stretch(deal, boxes):
        boxes[2] += bytes(100_000)
        deal.dealt[2].box_sha256 = sha256(boxes[2])

    stage.with_deals()
    with pytest.raises(BreachError, match="bytes") as caught:
        stage.server.receive_shares(stage.changed_deal("bob", stretch))
    assert (caught.value.blame.suspects, caught.value.blame.proven) == (("bob",), True)


def test_a_complaint_of_one_that_nobody_dealt_to_convicts_it(stage):
    message = complaint(stage.with_deliveries(), "ada")
    del stage.server._deals["ada"]
    blame = stage.server.receive_complaint(message)
    assert (blame.suspects, blame.proven) == (("ada",), True)
