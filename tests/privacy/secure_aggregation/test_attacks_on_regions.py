"""Attacks that a second level adds, and one that it cannot prevent."""

import dataclasses

import numpy as np
import pytest

from clients.answered_sessions import AnsweredSessions
from fedtrain.core.errors import PolicyError
from fedtrain.secagg.blame import BreachError, UnauthenticError
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.envelopes import encoded, enveloped
from fedtrain.secagg.messages_pb2 import ADVERTISEMENT, Advertisement
from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.regions import regions_for
from fedtrain.secagg.simulated_regions import RegionalNetwork

LENGTH = 4


@pytest.fixture
def network():
    ids = [f"client-{number:02}" for number in range(12)]
    return RegionalNetwork(regions_for(12, 4), client_ids=ids, vector_length=LENGTH)


def vectors_of(network):
    ids = [name for region in network.regions.values() for name in region.identities]
    return {
        name: np.full(LENGTH, number + 1, np.uint32) for number, name in enumerate(ids)
    }


def join(network, client_id, roster, *, by, approval):
    """What an honest client does with a roster that the aggregator of ``by`` signed."""
    return ClientSession(
        roster.signed(by.operator_key),
        client_id=client_id,
        identity=network.identities[client_id],
        approval=approval,
        answered=network.answered[client_id],
    )


def test_a_client_is_asked_into_a_second_region(network):
    home, other = network.regions["region-00"], network.regions["region-01"]
    (member, *_) = home.roster(0).members
    members = tuple(sorted([*other.roster(0).members, member]))
    roster = dataclasses.replace(
        other.roster(0), members=members, parameters=parameters_for(4)
    )
    with pytest.raises(UnauthenticError):
        join(home, member.client_id, roster, by=other, approval=home.approval())
    # Its own aggregator cannot move it there either: its new peers' keys are strange.
    with pytest.raises(PolicyError, match="'client-03' is not the pinned one"):
        join(home, member.client_id, roster, by=home, approval=home.approval())


def test_a_client_that_agreed_to_two_regions_answers_a_round_in_one(network):
    home, other = network.regions["region-00"], network.regions["region-01"]
    network.secure_sum(0, vectors_of(network))
    (member, *_) = home.roster(0).members
    roster = dataclasses.replace(
        other.roster(0),
        members=tuple(sorted([*other.roster(0).members, member])),
        parameters=parameters_for(4),
    )
    both = dataclasses.replace(
        other.approval(), pinned_keys=home.pinned_keys | other.pinned_keys
    )
    with pytest.raises(BreachError, match="answered already"):
        join(home, member.client_id, roster, by=other, approval=both)


def test_the_top_aggregator_leaves_out_a_region(network):
    top = network.top
    three = dataclasses.replace(
        top.roster(0), members=top.roster(0).members[:3], parameters=parameters_for(3)
    )
    with pytest.raises(PolicyError, match="3 clients, the policy asks for at least 4"):
        join(top, "region-00", three, by=top, approval=top.approval())


def test_a_region_opens_a_smaller_sum_than_promised():
    """Regions of five clients count on no more honest ones than the one of four."""
    ids = [f"client-{number:02}" for number in range(14)]
    found = RegionalNetwork(regions_for(14, 3), client_ids=ids, vector_length=LENGTH)
    home = found.regions["region-00"]
    promised = dataclasses.replace(home.approval(), least_clients=4, least_threshold=4)
    small = dataclasses.replace(
        home.roster(0), members=home.roster(0).members[:4], parameters=parameters_for(4)
    )
    with pytest.raises(
        PolicyError, match="3 survivors, the policy asks for at least 4"
    ):
        join(home, "client-00", small, by=home, approval=promised)
    join(home, "client-00", home.roster(0), by=home, approval=promised)


def test_a_region_shows_its_clients_another_plan_than_the_tops(network):
    home = network.regions["region-00"]
    other = dataclasses.replace(home.roster(0), plan_sha256=bytes(32))
    with pytest.raises(PolicyError, match="another plan than the approved one"):
        join(home, "client-00", other, by=home, approval=home.approval())


def test_a_region_asks_its_clients_twice_for_one_attempt_of_the_top(network, tmp_path):
    home = network.regions["region-00"]

    def asked(attempt):
        again = dataclasses.replace(home.roster(0), attempt=attempt)
        return ClientSession(
            again.signed(home.operator_key),
            client_id="client-00",
            identity=home.identities["client-00"],
            approval=home.approval(),
            answered=AnsweredSessions(tmp_path, attempt),
        )

    asked(0)
    AnsweredSessions(tmp_path, 0).claim(home.roster(0).plan_sha256, 0)
    with pytest.raises(BreachError, match="answered already"):
        asked(0)
    asked(1)  # a further attempt of the top, which is charged by itself


def test_a_client_poses_as_a_region(network):
    server = network.top.server(0)
    posing = enveloped(
        ADVERTISEMENT,
        Advertisement(encryption_key=bytes(32), masking_key=bytes(32)),
        session=server.roster.session,
        sender="region-00",
        key=network.regions["region-00"].identities["client-00"],
    )
    with pytest.raises(UnauthenticError):
        server.receive_keys(encoded(posing))


def test_a_regional_aggregator_that_replaces_its_sum_is_not_noticed(network):
    """Documented as not prevented: at the top, a region's sum is unseen like any."""
    vectors = vectors_of(network)
    honest = {
        name: region.secure_sum(0, vectors).total
        for name, region in network.regions.items()
    }
    found = network.top.secure_sum(0, honest | {"region-02": np.zeros(4, np.uint32)})
    assert found.blames == ()
    assert (found.total == sum(range(1, 13)) - (7 + 8 + 9)).all()
