import numpy as np
import pytest
import tensorflow as tf

from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import chain, kernel_leaves, one_shot
from fedtrain.compression.prune import polynomial_sparsity, pruned
from fedtrain.compression.quantize import quantized
from fedtrain.compression.size import num_distinct, sparsity
from fedtrain.core import nests
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights

RANDOM = np.random.default_rng(3)
WEIGHTS = ModelWeights(
    trainable={
        "kernel": RANDOM.normal(size=[40, 30]).astype(np.float32),
        "bias": RANDOM.normal(size=[30]).astype(np.float32),
        "filters": RANDOM.normal(size=[3, 3, 8, 12]).astype(np.float32),
    },
    state=RANDOM.normal(size=[5, 5]).astype(np.float32),
)
EVERYTHING = chain(pruned(0.75), clustered(16), quantized(per_channel=False))


def test_biases_and_model_state_stay_as_they_are():
    small = one_shot(WEIGHTS, EVERYTHING)
    np.testing.assert_array_equal(small.trainable["bias"], WEIGHTS.trainable["bias"])
    np.testing.assert_array_equal(small.state, WEIGHTS.state)


def test_sharing_and_rounding_keep_the_zeros_of_pruning():
    small = one_shot(WEIGHTS, EVERYTHING).trainable
    only_pruned = one_shot(WEIGHTS, pruned(0.75)).trainable
    for name in ("kernel", "filters"):
        np.testing.assert_array_equal(small[name] == 0, only_pruned[name] == 0)
        assert sparsity(small[name]) == 0.75
        assert num_distinct(small[name]) <= 16


@pytest.mark.parametrize(
    "constraint", [pruned(0.6), pruned(0.6, scope="global"), clustered(9), EVERYTHING]
)
def test_what_satisfies_a_constraint_is_left_alone(constraint):
    once = one_shot(WEIGHTS, constraint)
    twice = one_shot(once, constraint)
    for name, leaf in once.trainable.items():
        np.testing.assert_allclose(twice.trainable[name], leaf, rtol=1e-6, atol=0)


@pytest.mark.parametrize("constraint", [pruned(0.6), clustered(9), EVERYTHING])
def test_kept_weights_need_no_projection_but_their_gradients_do(constraint):
    weights = nests.to_tensors(WEIGHTS.trainable)
    fixed = constraint.derive(weights, 0)
    kept = constraint.keep(fixed, weights)
    found = []
    for apply in (constraint.apply, constraint.within):
        with tf.GradientTape() as tape:
            tape.watch(kept)
            outputs = apply(fixed, kept)
            loss = sum(tf.reduce_sum(outputs[k] * weights[k]) for k in sorted(weights))
        found.append((outputs, tape.gradient(loss, kept)))
    for expected, actual in zip(*map(tf.nest.flatten, found), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_one_shot_takes_a_schedule_at_its_end():
    schedule = polynomial_sparsity(0.9, end_round=10)
    small = one_shot(WEIGHTS, pruned(schedule))
    assert sparsity(small.trainable["kernel"]) == pytest.approx(0.9)
    early = one_shot(WEIGHTS, pruned(schedule), round_number=0)
    assert sparsity(early.trainable["kernel"]) == 0


def test_kernels_can_be_named():
    leaves = tf.nest.flatten(WEIGHTS.trainable)
    only = [leaf.ndim == 4 for leaf in leaves]
    small = one_shot(WEIGHTS, pruned(0.5, kernels=only)).trainable
    assert sparsity(small["filters"]) == 0.5
    assert sparsity(small["kernel"]) == 0


def test_kernels_must_fit_the_model():
    with pytest.raises(ConfigError, match="2 entries, but the model has 3"):
        kernel_leaves(WEIGHTS.trainable, [True, False])
    with pytest.raises(ConfigError, match="None of the 1"):
        kernel_leaves([np.zeros(3, np.float32)], None)
    with pytest.raises(ConfigError, match="at least one"):
        chain()
