import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.runtimes.flat import flattened, unflattened

NEST = {
    "scalar": tf.constant(2.5, tf.float64),
    "matrix": tf.reshape(tf.range(6.0), [2, 3]),
    "flags": tf.constant([True, False]),
    "empty": tf.zeros([0, 4]),
    "bytes": tf.constant([3, 255], tf.uint8),
    "vector": tf.constant([7.0]),
}


@pytest.mark.parametrize("compiled", [False, True])
def test_a_nest_comes_back_from_one_vector_for_each_dtype(compiled):
    there, back = flattened, unflattened
    if compiled:
        there, back = tf.function(flattened), tf.function(unflattened)
    vectors = there(NEST)
    assert [v.dtype for v in vectors] == [tf.float32, tf.float64, tf.int32]
    assert [len(v) for v in vectors] == [7, 1, 4]
    again = back(vectors, NEST)
    for name, leaf in NEST.items():
        assert again[name].dtype == leaf.dtype
        np.testing.assert_array_equal(again[name], leaf)


def test_what_cannot_be_added_up_is_refused():
    with pytest.raises(ConfigError, match="string"):
        flattened(tf.constant("words"))
