import numpy as np
import pytest
import tensorflow as tf

from fedtrain.compression.constraint import one_shot
from fedtrain.compression.quantize import quantized
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights

RANDOM = np.random.default_rng(6)
KERNEL = (RANDOM.normal(size=[50, 4]) * [1e-3, 1, 100, 0]).astype(np.float32)


def after(constraint, kernel=KERNEL):
    return one_shot(ModelWeights([kernel]), constraint).trainable[0].numpy()


def test_each_channel_is_within_half_a_step_of_what_it_was():
    steps = np.abs(KERNEL).max(0) / 127
    assert np.all(np.abs(after(quantized()) - KERNEL) <= steps * 0.5001)


def test_codes_are_whole_numbers_up_to_127():
    channel = after(quantized())[:, 2]
    codes = channel / (np.abs(KERNEL[:, 2]).max() / 127)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    assert np.abs(codes).max() == pytest.approx(127)


def test_one_scale_for_the_kernel_loses_small_channels():
    rounded = after(quantized(per_channel=False))
    assert not rounded[:, 0].any()
    assert np.unique(rounded).size <= 255


def test_the_gradient_passes_inside_the_range_only():
    constraint = quantized(num_bits=4)
    fixed = constraint.derive([tf.constant([[-1.0], [0.5]])], 0)
    moved = tf.constant([[-1.2], [0.33]])
    with tf.GradientTape() as tape:
        tape.watch(moved)
        (rounded,) = constraint.apply(fixed, [moved])
    np.testing.assert_allclose(rounded, [[-1.0], [2 / 7]], rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(rounded, moved), [[0.0], [1.0]])


def test_the_server_keeps_what_is_below_a_step():
    constraint = quantized()
    leaves = [tf.constant(KERNEL)]
    assert constraint.keep(constraint.derive(leaves, 0), leaves) is leaves


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="from 2 to 16, got 1"):
        quantized(num_bits=1)
