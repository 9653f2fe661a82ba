"""Attacks before the first key: by what the aggregator proposes."""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stage import LENGTH, NAMES, PARAMETERS, Stage

from fedtrain.core.errors import PolicyError
from fedtrain.secagg.answered import AnsweredRounds
from fedtrain.secagg.blame import BreachError, UnauthenticError
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.envelopes import encoded, enveloped, sha256
from fedtrain.secagg.messages_pb2 import ROSTER
from fedtrain.secagg.parameters import Parameters, parameters_for
from fedtrain.secagg.roster import Member
from fedtrain.secagg.simulated_network import SimulatedNetwork


@pytest.fixture(scope="module")
def network():
    return SimulatedNetwork(PARAMETERS, client_ids=NAMES, vector_length=LENGTH)


def join(network, roster, *, approval=None, answered=None):
    """What an honest ada does with a roster that the operator signed."""
    return ClientSession(
        roster.signed(network.operator_key),
        client_id="ada",
        identity=network.identities["ada"],
        approval=approval or network.approval(),
        answered=answered or network.answered["ada"],
    )


def changed(network, **changes):
    return dataclasses.replace(network.roster(0), **changes)


def with_body(network, **changes):
    """A roster message with fields that no honest aggregator can put there."""
    body = network.roster(0)._body()
    for field, value in changes.items():
        setattr(body, field, value)
    return enveloped_roster(network, body)


def enveloped_roster(network, body):
    session = sha256(encoded(body))
    key = network.operator_key
    return encoded(enveloped(ROSTER, body, session=session, sender="", key=key))


def test_an_honest_roster_is_joined(network):
    assert join(network, network.roster(0)).advertisement()


def test_shrunken_roster(network):
    three = network.roster(0).members[:3]
    roster = changed(network, members=three, parameters=parameters_for(3))
    with pytest.raises(PolicyError, match="3 clients, the policy asks for at least 4"):
        join(network, roster)


@pytest.mark.parametrize("threshold", [0, 2, 5])
def test_lowered_threshold(network, threshold):
    approval = network.approval()
    with pytest.raises(BreachError, match="threshold"):
        approval.checked(with_body(network, threshold=threshold), "ada")


def test_fewer_colluders_than_the_client_reckons_with(network):
    parameters = dataclasses.replace(PARAMETERS, num_colluding=0)
    with pytest.raises(PolicyError, match="colluding"):
        join(network, changed(network, parameters=parameters))


def test_fewer_honest_survivors_than_the_noise_is_meant_for(network):
    parameters = dataclasses.replace(PARAMETERS, num_honest_survivors=1)
    with pytest.raises(PolicyError, match="honest survivors"):
        join(network, changed(network, parameters=parameters))


def test_more_honest_survivors_than_the_threshold_leaves(network):
    approval = network.approval()
    with pytest.raises(BreachError, match="num_honest_survivors"):
        approval.checked(with_body(network, num_honest_survivors=3), "ada")


def test_substituted_identity_key(network):
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    members = list(network.roster(0).members)
    members[1] = Member("bob", stranger)
    with pytest.raises(PolicyError, match="'bob' is not the pinned one"):
        join(network, changed(network, members=tuple(members)))


def test_invented_client(network):
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    members = (*network.roster(0).members, Member("eve", stranger))
    roster = changed(network, members=members, parameters=parameters_for(5))
    with pytest.raises(PolicyError, match="'eve' is not the pinned one"):
        join(network, roster)


def test_one_key_under_two_names(network):
    body = network.roster(0)._body()
    body.members[1].identity_key = body.members[2].identity_key
    with pytest.raises(BreachError, match="identity key of its own"):
        network.approval().checked(enveloped_roster(network, body), "ada")


def test_members_out_of_order_move_the_points_of_shares(network):
    body = network.roster(0)._body()
    first, second = body.members[0].client_id, body.members[1].client_id
    body.members[0].client_id, body.members[1].client_id = second, first
    with pytest.raises(BreachError, match="in order"):
        network.approval().checked(enveloped_roster(network, body), "ada")


def test_a_client_that_is_not_in_the_roster_stays_away(network):
    with pytest.raises(PolicyError, match="not in it"):
        network.approval().checked(network.server(0).roster_message, "eve")


def test_own_key_altered_in_roster_and_pins(network):
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    members = (Member("ada", stranger), *network.roster(0).members[1:])
    approval = dataclasses.replace(network.approval(), pinned_keys=dict(members))
    with pytest.raises(PolicyError, match="not this client's own"):
        join(network, changed(network, members=members), approval=approval)


def test_another_plan(network):
    with pytest.raises(PolicyError, match="another plan"):
        join(network, changed(network, plan_sha256=bytes(32)))


def test_another_vector_length(network):
    with pytest.raises(PolicyError, match="words"):
        join(network, changed(network, vector_length=LENGTH - 1))


def test_another_protocol_version(network):
    with pytest.raises(BreachError, match="version 2"):
        network.approval().checked(with_body(network, version=2), "ada")


@pytest.mark.parametrize("field", ["nonce", "plan_sha256"])
def test_a_nonce_or_hash_too_short_to_tell_sessions_apart(network, field):
    with pytest.raises(BreachError, match="bytes"):
        network.approval().checked(with_body(network, **{field: b"short"}), "ada")


def test_roster_of_another_operator(network):
    message = network.roster(0).signed(Ed25519PrivateKey.generate())
    with pytest.raises(UnauthenticError, match="signature"):
        network.approval().checked(message, "ada")


def test_altered_roster_under_the_old_signature(network):
    message = network.roster(0).signed(network.operator_key)
    for place in range(0, len(message), 7):
        flipped = bytearray(message)
        flipped[place] ^= 1
        with pytest.raises(UnauthenticError):
            network.approval().checked(bytes(flipped), "ada")


def test_stale_round_and_retry_of_an_answered_one(network, tmp_path):
    answered = AnsweredRounds(tmp_path)
    answered.claim(network.plan_sha256, 4)
    for round_number, attempt in ((3, 0), (4, 0), (4, 1)):
        roster = dataclasses.replace(network.roster(round_number), attempt=attempt)
        with pytest.raises(BreachError, match="round 4 is answered already"):
            join(network, roster, answered=answered)
    assert join(network, network.roster(5), answered=answered)


def test_an_answered_round_is_not_opened_twice_even_by_sessions_begun_before():
    stage = Stage().with_signatures()
    other = Stage(stage.network).with_signatures()
    stage.clients["ada"].unmask(stage.request)
    with pytest.raises(BreachError, match="answered already"):
        other.clients["ada"].unmask(other.request)


def test_a_restarted_client_refuses_the_round_that_it_answered(tmp_path):
    stage = Stage()
    stage.network.answered = {name: AnsweredRounds(tmp_path / name) for name in NAMES}
    Stage(stage.network).with_answers()
    stage.network.answered = {name: AnsweredRounds(tmp_path / name) for name in NAMES}
    with pytest.raises(BreachError, match="answered already"):
        Stage(stage.network)


def test_parameters_of_the_stage_are_the_least_that_withstand_a_colluder():
    assert (
        Parameters(num_clients=4, threshold=3, num_colluding=1, num_honest_survivors=2)
        == PARAMETERS
    )
