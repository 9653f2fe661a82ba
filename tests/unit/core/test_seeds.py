import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from fedtrain.core import seeds

SEED = seeds.root(7)


def test_derived_seeds_depend_on_every_label():
    derived = {
        tuple(seeds.derive(SEED, *labels))
        for labels in [("a",), ("b",), ("a", 1), ("a", "1"), ("a1",), (1, "a")]
    }
    assert len(derived) == 6


def test_the_same_labels_give_the_same_seed():
    np.testing.assert_array_equal(
        seeds.derive(SEED, "round", 3), seeds.derive(SEED, "round", 3)
    )


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_normals_agree_between_eager_and_compiled(dtype, jit_compile):
    def draw(seed):
        return seeds.normal([1001], seed, stddev=2.0, dtype=dtype)

    compiled = tf.function(draw, jit_compile=jit_compile)(tf.constant(SEED))
    tolerance = 5e-6 if dtype == tf.float32 else 1e-12
    np.testing.assert_allclose(compiled, draw(SEED), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_normals_are_normal(dtype):
    # Kolmogorov-Smirnov at a fixed seed; a right generator fails with chance 1e-3.
    draws = seeds.normal([50_000], SEED, stddev=3.0, dtype=dtype).numpy() / 3.0
    assert stats.kstest(draws, "norm").pvalue > 1e-3


def test_uniforms_never_touch_their_ends():
    draws = seeds.uniform([1_000_000], SEED).numpy()
    assert draws.min() > 0.0
    assert draws.max() < 1.0


def test_split_gives_different_seeds():
    parts = seeds.split(SEED, 100).numpy()
    assert len({tuple(part) for part in parts}) == 100


def test_leaves_of_a_nest_get_independent_noise():
    nest = {"a": tf.zeros([500]), "b": tf.zeros([500])}
    noise = seeds.normal_like(nest, SEED, stddev=1.0)
    correlation = np.corrcoef(noise["a"], noise["b"])[0, 1]
    # Four standard errors of 1 / sqrt(500): a right generator fails with chance 6e-5.
    assert abs(correlation) < 4 / np.sqrt(500)
