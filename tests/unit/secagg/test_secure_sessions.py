"""Whole sessions: whoever is lost, in whatever order, the sum is exact or absent."""

from dataclasses import replace

import numpy as np
import pytest
from lossy_networks import LOSSES, expected_sum, network_of, tangled, vectors_for

from fedtrain.core.errors import TooFewClientsError
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.parameters import LEAST_CLIENTS, MOST_CLIENTS, parameters_for
from fedtrain.secagg.server import ServerSession, Step
from fedtrain.secagg.simulated_network import Faults, played


def run_session(seed, most_clients):
    draw = np.random.default_rng(seed)
    num_clients = int(draw.integers(LEAST_CLIENTS, most_clients, endpoint=True))
    network = network_of(num_clients, num_colluding=int(draw.integers(2)))
    # Some sessions lose one client more than they can.
    most_lost = network.parameters.num_tolerated_losses + (draw.random() < 0.3)
    names = draw.permutation(sorted(network.identities))
    names = names[: draw.integers(most_lost, endpoint=True)]
    lost = {str(name): Step(draw.choice(LOSSES)) for name in names}
    vectors = vectors_for(network, draw)
    expected = expected_sum(network, vectors, lost)
    faults = Faults(lost=lost, carried=tangled(draw))
    if expected is None:
        with pytest.raises(TooFewClientsError):
            network.secure_sum(0, vectors, faults)
        return
    found = network.secure_sum(0, vectors, faults)
    np.testing.assert_array_equal(found.total, expected[0])
    assert found.survivors == expected[1]
    assert found.blames == ()


@pytest.mark.parametrize("block", range(10))
def test_sums_are_exact_or_absent(block):
    for number in range(20):
        run_session([0, block, number], most_clients=6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(30))
def test_sums_are_exact_or_absent_for_all_sizes(block):
    for number in range(100):
        run_session([1, block, number], most_clients=MOST_CLIENTS)


@pytest.mark.parametrize("step", LOSSES)
def test_a_client_lost_at_each_step_is_in_the_sum_once_its_input_came(step):
    network = network_of(4)
    vectors = vectors_for(network, np.random.default_rng(1))
    lost = {"client-02": step}
    found = network.secure_sum(0, vectors, Faults(lost=lost, carried=list))
    total, survivors = expected_sum(network, vectors, lost)
    np.testing.assert_array_equal(found.total, total)
    assert ("client-02" in found.survivors) == (step > Step.INPUTS)
    assert found.survivors == survivors


def test_three_clients_need_all_three():
    network = network_of(3)
    vectors = vectors_for(network, np.random.default_rng(2))
    found = network.secure_sum(0, vectors)
    np.testing.assert_array_equal(found.total, sum(vectors.values()))
    faults = Faults(lost={"client-00": Step.UNMASK}, carried=list)
    with pytest.raises(TooFewClientsError):
        network.secure_sum(1, vectors, faults)


def test_a_network_sums_many_rounds_and_keeps_the_vectors():
    network = network_of(3, vector_length=70_001)
    ones = {n: np.full(70_001, 2**31, np.uint32) for n in network.identities}
    for round_number in range(2):
        found = network.secure_sum(round_number, ones)
        assert (found.total == 2**31).all()
    assert all((vector == 2**31).all() for vector in ones.values())


def test_a_retry_has_fresh_keys_and_leaves_out_who_was_named():
    roster = network_of(5).roster(3)
    again = roster.retried(without=["client-02"])
    assert again.client_ids == ("client-00", "client-01", "client-03", "client-04")
    assert (again.round_number, again.attempt) == (3, 1)
    assert again.parameters == parameters_for(4)
    assert again.session != roster.session
    assert again.nonce != roster.nonce


def test_a_failed_round_is_tried_again_under_fresh_keys_without_one_client():
    network = network_of(5)
    vectors = vectors_for(network, np.random.default_rng(4))
    lost = {"client-01": Step.INPUTS, "client-02": Step.INPUTS}
    first = network.roster(0)
    with pytest.raises(TooFewClientsError, match="INPUTS"):
        network.secure_sum(0, vectors, Faults(lost=lost, carried=list))
    roster = first.retried(without=["client-02"])
    approval = replace(network.approval(), least_clients=4, least_honest_survivors=2)
    clients = {
        name: ClientSession(
            roster.signed(network.operator_key),
            client_id=name,
            identity=network.identities[name],
            approval=approval,
            answered=network.answered[name],
        )
        for name in roster.client_ids
    }
    found = played(ServerSession(roster, network.operator_key), clients, vectors)
    total = sum(vectors[name] for name in roster.client_ids)
    np.testing.assert_array_equal(found.total, total)
