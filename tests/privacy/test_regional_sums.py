"""All regional sums of a round, one below the other, move by the bound of one sum."""

import math

import numpy as np
import pytest

from fedtrain.aggregation.fixed_point import FixedPoint
from fedtrain.core.keystream import KeyStream
from fedtrain.secagg.regions import regions_for

NUM_WEIGHTS = 40
CONTRIBUTIONS = FixedPoint(num_weights=NUM_WEIGHTS)
SUMS = FixedPoint(num_weights=NUM_WEIGHTS, bounded="unit", largest=2**30 // 16)
CLIENTS = [f"client-{number:02}" for number in range(16)]


def directions(size, seed):
    """Vectors of the clipping norm, one."""
    found = np.random.default_rng(seed).normal(size=[size, NUM_WEIGHTS])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def stacked(grid, values):
    """The sums of four regions without noise, each client rounding by its own words."""
    members = regions_for(len(values), 4).members(values)
    encoded = {
        name: grid.encode(
            value, clipping_norm=1.0, source=KeyStream(bytes(range(32)), name)
        ).astype(np.int64)
        for name, value in values.items()
    }
    return np.stack(
        [sum(encoded[name] for name in names) for names in members.values()]
    )


def distance(grid, values, neighbour):
    """In bounds on one unit, as the accountant knows it."""
    moved = stacked(grid, values) - stacked(grid, neighbour)
    return np.linalg.norm(moved) / math.sqrt(grid.sensitivity_squared)


@pytest.mark.parametrize("changed", ["client-00", "client-07", "client-15"])
def test_a_client_moves_them_by_its_own_contribution_only(changed):
    whole = dict(zip(CLIENTS, directions(16, 1), strict=True))
    empty = distance(CONTRIBUTIONS, whole, whole | {changed: np.zeros(NUM_WEIGHTS)})
    assert 0.9 < empty <= 1.0
    opposite = distance(CONTRIBUTIONS, whole, whole | {changed: -whole[changed]})
    assert 1.8 < opposite <= 2.0


def test_a_row_moves_them_by_one_bound_and_an_entity_by_one_a_client():
    sums = dict(zip(CLIENTS, 5.0 * directions(16, 2), strict=True))
    row = directions(1, 3)[0]
    more = {"client-07": sums["client-07"] + row}
    assert 0.9 < distance(SUMS, sums, sums | more) <= 1.0
    # Point 4 counts two draws in one sum as two; here they are in two regions.
    more |= {"client-12": sums["client-12"] + row}
    assert 1.3 < distance(SUMS, sums, sums | more) <= 2.0


def test_one_client_fewer_deals_others_into_other_regions():
    """Why ``add_or_remove_one`` is refused for clients in regions."""
    signs = [-1.0 if number // 4 % 2 == 0 else 1.0 for number in range(16)]
    (one,) = directions(1, 4)
    whole = {name: sign * one for name, sign in zip(CLIENTS, signs, strict=True)}
    fewer = {name: value for name, value in whole.items() if name != "client-00"}
    assert distance(CONTRIBUTIONS, whole, fewer) > 3.0
