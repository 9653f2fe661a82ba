"""One unit's largest effect on what the noise is added to (properties)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.privacy.clipping import clip_to_norm, sum_by_entity, sum_of_clipped
from fedtrain.privacy.gaussian import gaussian_mechanism

CLIPPING_NORM = 0.7
ROUNDING = 1e-4  # float32 sums of a few rows
ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)
ORDINARY = st.floats(-100, 100, width=32)
RATHER_WILD = st.one_of(ORDINARY, ANY_FLOAT)


def rows(num, elements=RATHER_WILD):
    return arrays.arrays(np.float32, (num, 5), elements=elements)


def nest(table):
    """Two leaves, so that a norm over one leaf only would be noticed."""
    return {"a": tf.constant(table[..., :2]), "b": tf.constant(table[..., 2:])}


def distance(left, right):
    return float(nests.global_norm(nests.subtract(left, right)))


@settings(max_examples=60, deadline=None)
@given(rows(4), st.integers(0, 3))
def test_leaving_one_example_out_moves_the_sum_by_the_clipping_norm(table, left_out):
    whole = sum_of_clipped(nest(table), CLIPPING_NORM)
    rest = sum_of_clipped(nest(np.delete(table, left_out, axis=0)), CLIPPING_NORM)
    assert distance(whole, rest) <= CLIPPING_NORM + ROUNDING


@settings(max_examples=60, deadline=None)
@given(rows(6), st.integers(0, 1))
def test_leaving_one_entity_out_moves_the_sum_by_the_clipping_norm(table, left_out):
    def total(gradients):
        return sum_of_clipped(sum_by_entity(nest(gradients), 3), CLIPPING_NORM)

    its_rows = range(3 * left_out, 3 * left_out + 3)
    rest = np.delete(table, its_rows, axis=0)
    assert distance(total(table), total(rest)) <= CLIPPING_NORM + ROUNDING


@settings(max_examples=60, deadline=None)
@given(rows(1))
def test_a_client_adds_at_most_the_clipping_norm(table):
    stage = gaussian_mechanism(clipping_norm=CLIPPING_NORM, noise_multiplier=1.0)
    given_ = Contribution(nest(table[0]), tf.constant(123.0), {})
    encoded, _ = stage.encode((), given_, (), seeds.root(0))
    assert float(nests.global_norm(encoded.update)) <= CLIPPING_NORM + 1e-6
    assert float(encoded.weight) == 0.0


@settings(max_examples=40, deadline=None)
@given(rows(1, st.floats(-0.25, 0.25, width=32)))
def test_what_is_within_the_bound_is_not_changed(table):
    clipped, norm = clip_to_norm(nest(table[0]), CLIPPING_NORM)
    assert distance(clipped, nest(table[0])) < 1e-6
    assert float(norm) == pytest.approx(np.linalg.norm(table), abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_counts_as_zero(bad):
    table = np.array([[0.1, 0.1, 0.1, 0.1, bad], [0.1, 0, 0, 0, 0]], np.float32)
    total = sum_of_clipped(nest(table), CLIPPING_NORM)
    assert distance(total, nest(table[1])) < 1e-6
    clipped, norm = clip_to_norm(nest(table[0]), CLIPPING_NORM)
    assert float(nests.global_norm(clipped)) == 0.0
    assert float(norm) == 0.0


def test_zero_stays_zero_and_a_huge_row_keeps_its_direction():
    zero, _ = clip_to_norm(nest(np.zeros(5, np.float32)), CLIPPING_NORM)
    assert float(nests.global_norm(zero)) == 0.0
    huge, _ = clip_to_norm(nest(np.full(5, 1e30, np.float32)), CLIPPING_NORM)
    np.testing.assert_allclose(huge["b"], CLIPPING_NORM / 5**0.5, rtol=1e-5)


def test_entity_rows_missing_at_the_end_count_as_zero():
    table = np.arange(15, dtype=np.float32).reshape(3, 5)
    by_entity = sum_by_entity(nest(table), 2)
    np.testing.assert_allclose(by_entity["a"], [table[0, :2] + table[1, :2], [10, 11]])
