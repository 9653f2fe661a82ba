import numpy as np
import tensorflow as tf

from fedtrain.client_work.unit_gradients import Outer


def test_positions_that_nearly_cancel_are_not_thought_smaller_than_they_are():
    """Inputs almost alike, gradients opposite, every product rounded one way."""
    random = np.random.default_rng(0)
    units, size, half = 256, 1024, 512
    first = np.repeat(1.0 + random.uniform(0, 1e-3, [units, 1]), size, 1)
    up, down = random.uniform(5e-4, 2e-2, [2, units, 1])
    moved = np.concatenate([np.repeat(up, half, 1), np.repeat(-down, half, 1)], 1)
    left = np.stack([first, first + moved], 1).astype(np.float32)
    right = np.ones([units, 2, 64], np.float32) * [[1], [-1]]
    difference = left[:, 1].astype(np.float64) - left[:, 0]
    true = 64 * np.sum(np.square(difference), 1)
    found = Outer(tf.constant(left), tf.constant(right, tf.float32)).squared_norms()
    assert np.all(found.numpy() >= true * (1 - 1e-6))
