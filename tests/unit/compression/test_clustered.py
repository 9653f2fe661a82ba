import numpy as np
import pytest
import tensorflow as tf
from sklearn.cluster import KMeans

from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import one_shot
from fedtrain.compression.size import num_distinct
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights

RANDOM = np.random.default_rng(5)
KERNEL = RANDOM.normal(size=[30, 40]).astype(np.float32)
SPARSE = np.where(np.abs(KERNEL) > 1.2, KERNEL, 0).astype(np.float32)


def after(constraint, kernel):
    return one_shot(ModelWeights([kernel]), constraint).trainable[0].numpy()


@pytest.mark.parametrize("num_clusters", [2, 7, 16])
def test_it_is_k_means_from_an_even_start(num_clusters):
    shared = after(clustered(num_clusters, keep_zeros=False), KERNEL)
    start = np.linspace(KERNEL.min(), KERNEL.max(), num_clusters)[:, None]
    column = KERNEL.reshape(-1, 1)
    oracle = KMeans(num_clusters, init=start, n_init=1, tol=0, max_iter=1000)
    oracle.fit(column.astype(np.float64))
    error = np.mean(np.square(shared - KERNEL)) * KERNEL.size
    assert num_distinct(shared) <= num_clusters
    assert error <= oracle.inertia_ * 1.001


def test_zeros_stay_zeros_and_nothing_else_becomes_zero():
    shared = after(clustered(4), SPARSE)
    np.testing.assert_array_equal(shared == 0, SPARSE == 0)
    assert num_distinct(shared) == 4


def test_without_iterations_a_weight_has_the_mean_of_its_stretch_of_the_range():
    shared = after(clustered(6, num_iterations=0, keep_zeros=False), KERNEL)
    even = np.linspace(KERNEL.min(), KERNEL.max(), 6)
    nearest = np.abs(KERNEL[..., None] - even).argmin(-1)
    for cluster in range(6):
        expected = KERNEL[nearest == cluster].mean(dtype=np.float64)
        np.testing.assert_allclose(shared[nearest == cluster], expected, rtol=1e-6)


@pytest.mark.parametrize("start", ["linear", "density"])
def test_shared_weights_keep_their_clusters(start):
    levels = np.array([0.0, -50.0, -0.01, 0.02, 0.03, 9.0], np.float32)
    kernel = levels[RANDOM.integers(0, 6, [20, 20])]
    np.testing.assert_allclose(after(clustered(6, start=start), kernel), kernel)


@pytest.mark.parametrize("kernel", [np.zeros([3, 4]), np.full([3, 4], 2.5)])
def test_constant_kernels_stay_as_they_are(kernel):
    kernel = kernel.astype(np.float32)
    np.testing.assert_array_equal(after(clustered(5), kernel), kernel)


@pytest.mark.parametrize("shape", [[8, 6], [300, 250]])
def test_the_gradient_is_that_of_the_shared_values(shape):
    kernel = tf.constant(RANDOM.normal(size=shape), tf.float64)
    targets = tf.constant(RANDOM.normal(size=shape), tf.float64)
    constraint = clustered(3, keep_zeros=False)
    (fixed,) = constraint.derive([kernel], 0)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(constraint.apply([fixed], [kernel])[0] * targets)
    gradient = tape.gradient(loss, kernel).numpy()
    for cluster in range(3):
        members = fixed.members.numpy() == cluster
        mean = targets.numpy()[members].mean()
        np.testing.assert_allclose(gradient[members], mean, rtol=1e-9)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="from 2 to 256, got 1"):
        clustered(1)
    with pytest.raises(ConfigError, match="start"):
        clustered(4, start="random")
