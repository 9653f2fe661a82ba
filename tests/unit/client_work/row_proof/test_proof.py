import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.row_proof.fact import Fact
from fedtrain.client_work.row_proof.proof import row_facts
from fedtrain.core import seeds

ROWS = Fact("rows")
WEIGHT = np.random.default_rng(0).normal(size=[4, 4]).astype(np.float32)
FILTER = np.ones([2, 2, 1, 3], np.float32)
SEED = seeds.root(1)


def num_rows(x):
    return tf.shape(x)[0]


def images(x):
    return tf.reshape(x, [-1, 2, 2, 1])


def normalised(x, data_format, shape):
    size = tf.shape(x)[0] if data_format == "NCHW" else 4
    ones, zeros = tf.ones([size]), tf.zeros([size])
    values, _, _ = tf.compat.v1.nn.fused_batch_norm(
        tf.reshape(x, shape), ones, zeros, data_format=data_format
    )
    return tf.reshape(values, [-1, 4])


KEPT = {
    "dense": lambda x: tf.nn.relu(x @ WEIGHT + 1.0),
    "sequence": lambda x: tf.reshape(tf.reshape(x, [-1, 1]) * 2.0, [-1, 4]),
    "time first": lambda x: tf.transpose(tf.transpose(x) * 3.0),
    "convolution": lambda x: tf.nn.conv2d(images(x), FILTER, 1, "SAME"),
    "pooling": lambda x: tf.nn.max_pool2d(images(x), 2, 1, "VALID"),
    "attention": lambda x: tf.nn.softmax(x[:, :, None] @ x[:, None, :]),
    "einsum": lambda x: tf.einsum("bi,bj,jk->bik", x, x, WEIGHT),
    "layer normalisation": lambda x: x - tf.reduce_mean(x, -1, keepdims=True),
    "Keras 2's": lambda x: normalised(x, "NCHW", [1, num_rows(x), 4, 1]),
    "dropout": lambda x: x * seeds.hashed_uniform(tf.shape(x), SEED),
    "uniform": lambda x: x * seeds.uniform(tf.shape(x), SEED),
    "slices": lambda x: tf.concat([x[:, 1:], x[:, :1], x[..., 0:1]], -1),
    "parts": lambda x: tf.stack(tf.unstack(x, axis=1)[::-1], 1),
    "embedding": lambda x: tf.gather(WEIGHT, tf.cast(x, tf.int32) % 4),
    "padding": lambda x: tf.pad(x, [[0, 0], [1, 1]]),
    "positions": lambda x: x + tf.range(4.0),
}
MET = {
    "mean of rows": lambda x: x - tf.reduce_mean(x, 0),
    "number of rows": lambda x: x / tf.cast(num_rows(x), tf.float32),
    "counted ones": lambda x: x * tf.reduce_sum(tf.ones_like(x)),
    "counted by spreading": lambda x: (
        x * tf.reduce_sum(x[:, :1] + tf.zeros_like(x[:, 0]), 1, keepdims=True)
    ),
    "last row": lambda x: (
        x * tf.cast(tf.range(num_rows(x)) < num_rows(x) - 1, tf.float32)[:, None]
    ),
    "column chosen by the number of rows": lambda x: x * x[:, num_rows(x) % 4, None],
    "column of that number": lambda x: tf.expand_dims(x[:, num_rows(x) % 4], 1) * x,
    "shifted rows": lambda x: tf.concat([x[1:], x[:1]], 0),
    "all but the last": lambda x: tf.pad(x[:-1], [[0, 1], [0, 0]]),
    "reversed": lambda x: tf.reverse(x, [0]),
    "running sum": lambda x: tf.cumsum(x, 0),
    "similarities": lambda x: x @ tf.transpose(x),
    "softmax over rows": lambda x: tf.transpose(tf.nn.softmax(tf.transpose(x))),
    "shuffled by a reshape": lambda x: tf.transpose(tf.reshape(x, [4, num_rows(x)])),
    "batch normalisation": lambda x: normalised(x, "NHWC", [-1, 1, 1, 4]),
    "looked up": lambda x: tf.gather(x, tf.cast(x[:, 0], tf.int32) % num_rows(x)),
    "einsum": lambda x: tf.einsum("bi,cj->bj", x, x),
    "loop": lambda x: tf.while_loop(
        lambda i, _: i < 2, lambda i, y: (i + 1, y - tf.reduce_mean(y, 0)), (0, x)
    )[1],
    "mask of the last place": lambda x: (
        x * tf.concat([tf.zeros_like(x[:-1]), tf.ones([1, 4])], 0)
    ),
    "repeated pattern": lambda x: (
        x * tf.reshape(tf.repeat(tf.range(4.0)[:, None], num_rows(x), 1), [-1, 4])
    ),
}


def fact_of(function):
    traced = tf.function(function, autograph=False)
    spec = tf.TensorSpec([None, 4])
    graph = traced.get_concrete_function(spec).graph
    (target,) = graph.outputs
    return row_facts([target], {graph.inputs[0].name: ROWS})[target.name]


@pytest.mark.parametrize("name", KEPT)
def test_rows_are_seen_to_stay_apart(name):
    assert fact_of(KEPT[name]) == ROWS


@pytest.mark.parametrize("name", KEPT)
def test_what_is_called_apart_is_apart(name):
    """Rows 0 and 1 are computed alike with and without their neighbours."""
    values = tf.constant(np.random.default_rng(3).normal(size=[5, 4]), tf.float32)
    whole = KEPT[name](values)
    np.testing.assert_allclose(whole[:2], KEPT[name](values[:2]), atol=1e-5)


@pytest.mark.parametrize("name", MET)
def test_rows_that_meet_are_noticed(name):
    assert fact_of(MET[name]) != ROWS


def test_neighbouring_places_of_a_row_are_counted():
    assert fact_of(lambda x: tf.reshape(x, [-1, 2])) == Fact("rows", 0, 2)
    assert fact_of(lambda x: tf.transpose(tf.reshape(x, [-1, 2]))).axis == 1


def test_unseeded_randomness_is_not_trusted():
    assert fact_of(lambda x: x * tf.random.uniform([])) is None  # noqa: TID251
