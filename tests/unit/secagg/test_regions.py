"""Sums of two levels: exact or absent, and every regional sum has its own noise."""

import math

import numpy as np
import pytest
from lossy_networks import LOSSES, expected_sum, tangled

from fedtrain.aggregation.fixed_point import FixedPoint, from_ring
from fedtrain.core.errors import ConfigError, TooFewClientsError
from fedtrain.core.keystream import KeyStream
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.secagg.regions import regions_for
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_network import Faults
from fedtrain.secagg.simulated_regions import RegionalNetwork, RegionsOnlyError

NUM_WEIGHTS = 20_000


def network_of(num_clients, num_regions, *, vector_length=5):
    return RegionalNetwork(
        regions_for(num_clients, num_regions),
        client_ids=[f"client-{number:02}" for number in range(num_clients)],
        vector_length=vector_length,
    )


def losses(draw, names, chance):
    return {str(n): Step(draw.choice(LOSSES)) for n in names if draw.random() < chance}


def expected(network, vectors, lost, top_lost):
    """The sum and the survivors of both levels; None where too few were left."""
    length = network.top.vector_length
    sums = {
        name: expected_sum(region, {n: vectors[n] for n in region.identities}, lost)
        for name, region in network.regions.items()
    }
    absent = {name: Step.KEYS for name, found in sums.items() if found is None}
    totals = {n: s[0] if s else np.zeros(length, np.uint32) for n, s in sums.items()}
    found = expected_sum(network.top, totals, top_lost | absent)
    if found is None:
        return None
    return found[0], tuple(client for name in found[1] for client in sums[name][1])


def run_regions(seed):
    """What was expected of a round of two levels, after it has been checked."""
    draw = np.random.default_rng([7, seed])
    num_regions = int(draw.integers(3, 4, endpoint=True))
    num_clients = int(draw.integers(3 * num_regions, 4 * num_regions, endpoint=True))
    network = network_of(num_clients, num_regions)
    clients = [
        name for region in network.regions.values() for name in region.identities
    ]
    vectors = {n: draw.integers(2**32, size=5, dtype=np.uint32) for n in clients}
    lost, top_lost = losses(draw, clients, 0.06), losses(draw, network.regions, 0.1)
    wanted = expected(network, vectors, lost, top_lost)
    faults = Faults(lost=lost, carried=tangled(draw))
    top_faults = Faults(lost=top_lost, carried=tangled(draw))
    if wanted is None:
        with pytest.raises(TooFewClientsError):
            network.secure_sum(0, vectors, faults, top_faults=top_faults)
        return None
    found = network.secure_sum(0, vectors, faults, top_faults=top_faults)
    np.testing.assert_array_equal(found.total, wanted[0])
    assert (found.survivors, found.blames) == (wanted[1], ())
    return len(clients) - len(found.survivors)


def test_sums_of_regions_are_exact_or_absent():
    missing = [run_regions(seed) for seed in range(14)]
    # The seeds are such that every kind of end is among them.
    assert {None, 0} < set(missing)
    assert any(number is not None and number >= 3 for number in missing)


def test_a_region_without_a_sum_is_lost_to_the_top():
    network = network_of(12, 4)
    vectors = {
        n: np.full(5, 2**30, np.uint32)
        for r in network.regions.values()
        for n in r.identities
    }
    faults = Faults(lost={"client-04": Step.INPUTS}, carried=list)
    found = network.secure_sum(0, vectors, faults)
    assert (found.total == 9 * 2**30 % 2**32).all()
    assert not {"client-03", "client-04", "client-05"} & set(found.survivors)
    both = Faults(lost=faults.lost | {"client-00": Step.KEYS}, carried=list)
    with pytest.raises(RegionsOnlyError, match="2 of 4 regions have shown"):
        network.secure_sum(1, vectors, both)


def test_every_regional_sum_has_the_noise_of_its_own_honest_survivors():
    network = network_of(10, 3, vector_length=NUM_WEIGHTS)
    honest = regions_for(10, 3).num_honest_survivors
    mechanism = IntegerGaussian(
        unit="client",
        trust="distributed",
        clipping_norm=1.0,
        noise_multiplier=1.0,
        grid=FixedPoint(num_weights=NUM_WEIGHTS, grid_bits=10),
        num_rounds=1,
        num_clients=10,
        num_honest=honest,
        num_regions=3,
    )
    noises = {
        name: mechanism.noised(
            np.zeros(NUM_WEIGHTS, np.uint32), KeyStream(bytes(range(32)), name)
        )
        for region in network.regions.values()
        for name in region.identities
    }
    small = network.regions["region-02"]
    of_region = small.secure_sum(0, {n: noises[n] for n in small.identities}).total
    without_colluder = of_region - noises[min(small.identities)]
    total = network.secure_sum(1, noises).total
    needed = float(mechanism.noise_variance)
    # Relative sd of a variance of so many draws; beyond five once in 500,000 for all.
    limit = 5.0 * math.sqrt(2.0 / NUM_WEIGHTS)
    for found, surplus in ((without_colluder, 1.0), (of_region, 1.5), (total, 5.0)):
        variance = float(np.var(from_ring(found).astype(float)))
        assert variance == pytest.approx(surplus * needed, rel=limit)


def test_regions_differ_by_one_client_and_count_on_the_weakest():
    regions = regions_for(14, 3, num_colluding=0)
    assert [one.num_clients for one in regions.sessions] == [5, 5, 4]
    assert [one.threshold for one in regions.sessions] == [4, 4, 3]
    assert {one.num_honest_survivors for one in regions.sessions} == {3}
    assert regions.top.num_tolerated_losses == 0


def test_a_client_is_in_one_region():
    regions = regions_for(9, 3)
    ids = [f"client-{number}" for number in range(9)]
    assert sorted(sum(regions.members(ids).values(), ())) == ids
    for others in (ids[:8], [*ids, "client-9"], [*ids[:8], "client-0"]):
        with pytest.raises(ConfigError, match="each in one of them"):
            regions.members(others)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"num_regions": 2}, "at least 3. Use as many regions"),
        ({"num_regions": 3, "num_colluding": 3}, "needs at least 4. Use as many"),
        ({"num_regions": 4}, "2 in one.*at most 3 regions, or enrol 2 more"),
        ({"num_regions": 3, "num_clients": 8}, "Use no regions, or enrol 1 more"),
        (
            {"num_regions": 3, "num_clients": 160},
            "num_regions, or more of them; else a smaller",
        ),
        ({"num_regions": 3, "threshold": 4}, "threshold must be from 3 to 3"),
        ({"num_regions": 3, "threshold": 1}, "none need be honest"),
    ],
    ids=str,
)
def test_regions_that_keep_no_promise_are_refused_with_the_way_out(asked, why):
    with pytest.raises(ConfigError, match=why):
        regions_for(**{"num_clients": 10} | asked)
