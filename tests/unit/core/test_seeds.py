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


def test_signs_are_one_or_minus_one_with_equal_chances():
    signs = seeds.signs(10_000, seeds.root(6), tf.float64).numpy()
    assert set(signs) == {-1.0, 1.0}
    # Their sum has a deviation of 100; beyond 6 of them in under 1e-8 of all seeds.
    assert abs(signs.sum()) < 600


def test_split_gives_different_seeds():
    parts = seeds.split(SEED, 100).numpy()
    assert len({tuple(part) for part in parts}) == 100


def test_leaves_of_a_nest_get_independent_noise():
    nest = {"a": tf.zeros([500]), "b": tf.zeros([500])}
    noise = seeds.normal_like(nest, SEED, stddev=1.0)
    correlation = np.corrcoef(noise["a"], noise["b"])[0, 1]
    # Four standard errors of 1 / sqrt(500): a right generator fails with chance 6e-5.
    assert abs(correlation) < 4 / np.sqrt(500)


def test_noise_has_each_leafs_own_type_and_shape():
    shapes = [([2], tf.float64), ([2], tf.float32), ([200, 200], tf.float32)]
    nest = [tf.zeros(shape, dtype) for shape, dtype in shapes]
    noise = seeds.normal_like(nest, SEED, stddev=1.0)
    assert [(leaf.shape, leaf.dtype) for leaf in noise] == shapes


def test_many_seeds_at_once_are_those_derived_one_by_one():
    names = ["a", "b", "\u00e9", ""]
    for_each = seeds.derive_for_each(SEED, "client", names)
    one_by_one = [seeds.derive(SEED, "client", name) for name in names]
    np.testing.assert_array_equal(for_each, one_by_one)
    np.testing.assert_array_equal(
        seeds.derive_from_each(for_each, "batches", 3),
        [seeds.derive(seed, "batches", 3) for seed in one_by_one],
    )
    assert seeds.derive_for_each(SEED, "client", []).shape == (0, 2)


def test_one_generator_after_another_draws_what_each_draws_by_itself():
    many = seeds.derive_for_each(SEED, "client", ["a", "b", "c"])
    for seed, random in zip(many, seeds.generators(many), strict=True):
        own = seeds.generator(seed)
        np.testing.assert_array_equal(random.random(5), own.random(5))
        np.testing.assert_array_equal(
            random.integers(9, size=3, dtype=np.int32),
            own.integers(9, size=3, dtype=np.int32),
        )


def test_words_of_a_seed_are_the_same_beside_other_seeds():
    many = seeds.derive_for_each(SEED, "client", ["a", "b", "c"])
    words, first = seeds.words(many, [5, 0, 9])
    alone, _ = seeds.words(many[2:], [9])
    np.testing.assert_array_equal(words[first[2] : first[2] + 9], alone[:9])
