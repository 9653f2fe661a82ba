import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.core.philox import philox


@given(
    keys=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1
    ),
    counter=st.integers(0, 2**32 - 1),
)
def test_words_are_those_of_tensorflow_s_philox(keys, counter):
    counters = np.full(len(keys), counter, np.uint32)
    words = philox(counters, np.array(keys, np.uint32))
    for (low, high), own in zip(keys, words, strict=True):
        expected = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[4],
            key=tf.constant([high << 32 | low], tf.uint64),
            counter=tf.constant([counter, 0], tf.uint64),
            alg=1,
            dtype=tf.uint32,
        )
        np.testing.assert_array_equal(own, expected)


def test_words_do_not_depend_on_how_many_are_asked_for():
    counters = np.arange(70_000, dtype=np.uint32)
    keys = np.full([70_000, 2], 7, np.uint32)
    many = philox(counters, keys)
    np.testing.assert_array_equal(many[-5:], philox(counters[-5:], keys[-5:]))
    assert len(np.unique(many[:, 0])) > 69_900
