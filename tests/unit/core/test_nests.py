import numpy as np
import tensorflow as tf

from fedtrain.core import nests

NEST = {"a": tf.constant([3.0, 0.0]), "b": [tf.constant([[4.0]])]}


def test_global_norm_takes_all_leaves_as_one_vector():
    assert float(nests.global_norm(NEST)) == 5.0


def test_global_norm_of_nothing_is_zero():
    assert float(nests.global_norm(())) == 0.0


def test_scale_keeps_the_dtype():
    scaled = nests.scale({"a": tf.constant(2.0, tf.float64)}, tf.constant(0.5))
    assert scaled["a"].dtype == tf.float64
    assert float(scaled["a"]) == 1.0


def test_all_finite_finds_one_bad_number():
    assert bool(nests.all_finite(NEST))
    assert not bool(nests.all_finite({"a": tf.constant([1.0, np.nan])}))
    assert not bool(nests.all_finite({"a": tf.constant([np.inf])}))


def test_num_weights_counts_scalars():
    assert nests.num_weights(NEST) == 3
