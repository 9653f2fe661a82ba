import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.compression.constraint import one_shot
from fedtrain.compression.prune import polynomial_sparsity, pruned, pruned_2_of_4
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights

RANDOM = np.random.default_rng(4)


def after(constraint, *leaves):
    given_ = ModelWeights([leaf.astype(np.float32) for leaf in leaves])
    return [leaf.numpy() for leaf in one_shot(given_, constraint).trainable]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0, 0.99),
    st.sampled_from([1e-40, 1e-6, 1.0, 1e30]),
)
def test_the_largest_are_kept_and_no_more(rows, columns, share, magnitude):
    kernel = (RANDOM.normal(size=[rows, columns]) * magnitude).astype(np.float32)
    (small,) = after(pruned(share), kernel)
    # The share is a float32: of 25 weights, 0.9 leaves a little over two and a half.
    num_kept = max(int(np.round(kernel.size * (1 - float(np.float32(share))))), 1)
    order = np.argsort(-np.abs(kernel), axis=None)
    expected = np.zeros(kernel.size, np.float32)
    expected[order[:num_kept]] = kernel.ravel()[order[:num_kept]]
    np.testing.assert_array_equal(small.ravel(), expected)


def test_globally_the_smaller_kernel_loses_more():
    random = np.random.default_rng(1)
    small, large = random.normal(size=[20, 20]) * 0.1, random.normal(size=[20, 20])
    pruned_small, pruned_large = after(pruned(0.5, scope="global"), small, large)
    assert np.mean(pruned_small == 0) > 0.85
    assert np.mean([pruned_small == 0, pruned_large == 0]) == 0.5


def test_kernels_of_zeros_can_still_learn():
    kernel = tf.zeros([3, 4])
    (mask,) = pruned(0.5).derive([kernel], tf.constant(0))
    assert np.all(mask)


@pytest.mark.parametrize("shape", [[8, 5], [3, 3, 8, 2], [10, 4]])
def test_two_of_four_inputs_are_kept(shape):
    kernel = RANDOM.normal(size=shape)
    (small,) = after(pruned_2_of_4(), kernel)
    inputs = np.moveaxis(small, -2, -1).reshape(-1, shape[-2])
    before = np.moveaxis(kernel, -2, -1).reshape(-1, shape[-2])
    whole = shape[-2] - shape[-2] % 4
    groups = np.abs(before[:, :whole]).reshape(-1, 4)
    kept = inputs[:, :whole].reshape(-1, 4) != 0
    np.testing.assert_array_equal(kept, groups >= np.sort(groups)[:, 2:3])
    assert np.all(inputs[:, whole:])


def test_the_schedule_follows_its_formula():
    schedule = polynomial_sparsity(0.8, end_round=12, initial=0.2, begin_round=2)
    values = [float(schedule(tf.constant(i))) for i in (0, 1, 2, 7, 12, 40)]
    middle = 0.8 - 0.6 * 0.5**3
    assert values == pytest.approx([0, 0, 0.2, middle, 0.8, 0.8])


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="sparsity must be in"):
        pruned(1.0)
    with pytest.raises(ConfigError, match="scope"):
        pruned(0.5, scope="row")
    with pytest.raises(ConfigError, match="end_round must come after"):
        polynomial_sparsity(0.5, end_round=3, begin_round=3)
