import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedtrain.aggregation.fixed_point import FixedPoint, from_ring, to_ring
from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import KeyStream

NUM = 7
NORM = 0.7
GRID = FixedPoint(num_weights=NUM, grid_bits=8)
ROWS = FixedPoint(num_weights=NUM, grid_bits=8, bounded="unit", largest=10_000)
ANYTHING = arrays.arrays(
    np.float64, NUM, elements=st.floats(allow_nan=True, allow_infinity=True)
)
FINITE = arrays.arrays(np.float64, NUM, elements=st.floats(-20.0, 20.0))


def stream(*labels):
    return KeyStream(bytes(range(32)), *labels)


def encoded(grid, update, source=None):
    return grid.encode(update, clipping_norm=NORM, source=source or stream("round"))


def squared_length(integers):
    return sum(x * x for x in integers.tolist())


@settings(max_examples=100, deadline=None)
@given(ANYTHING, st.sampled_from([np.float32, np.float64]))
def test_any_contribution_is_within_the_bound(update, dtype):
    with np.errstate(over="ignore"):
        whole = encoded(GRID, update.astype(dtype))
    assert squared_length(whole) <= GRID.sensitivity_squared
    np.testing.assert_array_equal(GRID.checked(whole), whole)


@settings(max_examples=100, deadline=None)
@given(FINITE, FINITE)
def test_one_unit_moves_a_sum_by_no_more_than_stated(others, unit):
    length = math.sqrt(float(np.sum(unit**2)))
    clipped = unit * min(1.0, NORM / length) if length else unit
    both = encoded(ROWS, others + clipped).astype(np.int64)
    moved = both - encoded(ROWS, others)
    assert squared_length(moved) <= ROWS.sensitivity_squared


def test_a_unit_moves_a_coarse_sum_beyond_its_norm_by_what_rounding_adds():
    size = 10_000
    grid = FixedPoint(num_weights=size, grid_bits=2, bounded="unit", largest=10_000)
    random = np.random.default_rng(3)
    others, signs = random.normal(size=size), random.choice([-1.0, 1.0], size)
    unit = signs * NORM / math.sqrt(size)
    moved = encoded(grid, others + unit).astype(np.int64) - encoded(grid, others)
    # One unit is 4 long and moves each coordinate by 0.04: about 400 of them by one.
    assert (1 << grid.grid_bits) ** 2 < squared_length(moved)
    assert squared_length(moved) <= grid.sensitivity_squared


@pytest.mark.parametrize("num_weights", [1, 8, 10**7])
@pytest.mark.parametrize("grid_bits", [1, 8, 16, 30])
def test_the_bound_on_sums_has_room_for_rounding_and_for_floats(num_weights, grid_bits):
    grid = FixedPoint(num_weights=num_weights, grid_bits=grid_bits, bounded="unit")
    moved = 2.0**grid_bits * (1.0 + 2.0**-10) + math.sqrt(num_weights)
    assert moved**2 <= grid.sensitivity_squared <= (moved + 2.0) ** 2


@settings(max_examples=50, deadline=None)
@given(ANYTHING)
def test_sums_of_units_are_cut_to_the_largest_coordinate(update):
    whole = ROWS.checked(encoded(ROWS, update))
    assert np.max(np.abs(whole)) <= ROWS.largest_coordinate
    assert not whole[np.isnan(update)].any()


def test_rounding_that_lengthens_too_far_is_done_again():
    class Ones:
        def words(self, num):
            """Rounds every coordinate up, again and again."""
            return np.zeros(num, np.uint64)

    many = FixedPoint(num_weights=10_000, grid_bits=4)
    update = np.full(10_000, 0.01)
    towards_zero = many.encode(update, clipping_norm=1.0, source=Ones())
    assert not towards_zero.any()
    ordinary = many.encode(update, clipping_norm=1.0, source=stream("round"))
    assert 0 < squared_length(ordinary) <= many.sensitivity_squared


@pytest.mark.parametrize("grid", [GRID, ROWS], ids=["contribution", "unit"])
def test_rounding_is_unbiased(grid):
    update = np.array([0.1, -0.2, 0.05, 0.0, 0.3, -0.01, 0.123])
    source = stream("round")
    drawn = [grid.decode(encoded(grid, update, source), NORM) for _ in range(4000)]
    # 5 standard errors of at most half a grid unit: once in a quarter million keys.
    tolerance = 5 * 0.5 * grid.grid(NORM) / math.sqrt(4000)
    np.testing.assert_allclose(np.mean(drawn, axis=0), update, atol=tolerance)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_contribution_that_is_not_finite_counts_as_zero(bad):
    assert not encoded(GRID, np.array([bad, *[1.0] * (NUM - 1)])).any()


def test_a_huge_contribution_is_clipped_to_its_direction():
    decoded = GRID.decode(encoded(GRID, np.full(NUM, 1.7e308)), NORM)
    np.testing.assert_allclose(decoded, NORM / math.sqrt(NUM), atol=GRID.grid(NORM))


def test_blocks_make_no_difference(monkeypatch):
    update = np.linspace(-1.0, 1.0, 1000)
    grid = FixedPoint(num_weights=1000, grid_bits=10)
    whole = encoded(grid, update)
    monkeypatch.setattr("fedtrain.aggregation.fixed_point._BLOCK", 64)
    np.testing.assert_array_equal(encoded(grid, update), whole)


def test_the_ring_gives_back_what_sums_to_less_than_half_of_it():
    parts = [np.array([2**30, -(2**30), -1], np.int32) for _ in range(3)]
    total = sum(to_ring(part) for part in parts[1:])
    assert total.dtype == np.uint32
    np.testing.assert_array_equal(from_ring(total), [-(2**31), -(2**31), -2])
    back = total - to_ring(parts[0])
    np.testing.assert_array_equal(from_ring(back), parts[0])


@pytest.mark.parametrize("grid_bits", [4, 16, 30])
@pytest.mark.parametrize("num_weights", [1, 1000, 10**9])
def test_the_bound_is_that_of_the_paper(num_weights, grid_bits):
    own = FixedPoint(num_weights=num_weights, grid_bits=grid_bits)
    norm, root = 2.0**grid_bits, math.sqrt(num_weights)
    paper = min(norm**2 + num_weights / 4 + norm + root / 2, (norm + root) ** 2)
    assert paper <= own.sensitivity_squared <= paper + 2 * norm + 2 * root + 4
    assert own.largest_coordinate <= 2**30 + 31_624


@pytest.mark.parametrize(
    ("whole", "why"),
    [
        (np.zeros(NUM, np.int64), "int64"),
        (np.zeros(NUM + 1, np.int32), "int32"),
        (np.full(NUM, 200, np.int32), "longer"),
        (np.array([2**31 - 1] + [0] * (NUM - 1), np.int32), "longer"),
        (np.array([-(2**31)] + [0] * (NUM - 1), np.int32), "longer"),
    ],
)
def test_what_no_honest_client_sends_is_refused(whole, why):
    with pytest.raises(ConfigError, match=why):
        GRID.checked(whole)


@pytest.mark.parametrize(
    "wrong",
    [{"grid_bits": 31}, {"largest": 2**30 + 1}, {"bounded": "row"}, {"num_weights": 0}],
    ids=str,
)
def test_unusable_grids_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FixedPoint(**{"num_weights": 1} | wrong)


def test_another_shape_is_refused():
    with pytest.raises(ConfigError, match="shape"):
        encoded(GRID, np.zeros(NUM + 1))
