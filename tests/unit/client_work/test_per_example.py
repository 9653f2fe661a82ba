import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.local_sgd import loss_gradients
from fedtrain.client_work.per_example import penalty_gradients, per_example_gradients
from fedtrain.core import seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.models.dense import dense_classifier
from fedtrain.models.losses import masked_token_cross_entropy, sparse_cross_entropy
from fedtrain.models.model import Batch, ForwardPass, Model, ModelWeights

SEED = seeds.root(3)
ROWS = 5
TOLERANCE = {tf.float32: 2e-6, tf.float64: 1e-13}


def random_weights(dtype, **shapes):
    random = np.random.default_rng(0)
    return {
        name: tf.constant(random.normal(size=shape) * 0.5, dtype)
        for name, shape in shapes.items()
    }


def model_of(outputs, *, loss=sparse_cross_entropy, **shapes):
    """A model whose outputs are a function of weights, features and seed."""

    def make(dtype):
        def forward(weights, features, *, training, seed):
            del training
            values = outputs(weights.trainable, features, seed)
            return ForwardPass(values, (), tf.zeros([], dtype))

        weights = ModelWeights(random_weights(dtype, **shapes))
        return Model(lambda seed: weights, forward, loss, {})

    return make


def conv(weights, images, seed):
    images = tf.cast(images, weights["filter"].dtype)
    values = tf.nn.relu(tf.nn.conv2d(images, weights["filter"], 1, "SAME"))
    return tf.reduce_mean(tf.nn.max_pool2d(values, 2, 2, "VALID"), [1, 2])


def recurrent(weights, tokens, seed):
    inputs = tf.transpose(
        tf.nn.embedding_lookup(weights["embedding"], tokens), [1, 0, 2]
    )

    def step(state, now):
        return tf.tanh(now @ weights["kernel"] + state @ weights["recurrent"])

    first = tf.zeros_like(inputs[0] @ weights["kernel"])
    states = tf.scan(step, inputs, first)
    return tf.transpose(states, [1, 0, 2]) @ weights["out"]


def noisy(weights, rows, seed):
    rows = tf.cast(rows, weights["kernel"].dtype)
    keep = seeds.uniform(tf.shape(rows), seed, rows.dtype) > 0.4
    return tf.where(keep, rows, tf.zeros_like(rows)) @ weights["kernel"]


MODELS = {
    "dense": lambda dtype: dense_classifier(6, 3, hidden=[4], dtype=dtype),
    "conv": model_of(conv, filter=[3, 3, 2, 3]),
    "recurrent": model_of(
        recurrent,
        loss=masked_token_cross_entropy,
        embedding=[7, 4],
        kernel=[4, 5],
        recurrent=[5, 5],
        out=[5, 7],
    ),
    "dropout": model_of(noisy, kernel=[6, 3]),
}
FEATURES = {"conv": [ROWS, 4, 4, 2], "recurrent": [ROWS, 6]}


def batch_for(kind):
    random = np.random.default_rng(1)
    shape = FEATURES.get(kind, [ROWS, 6])
    features = random.normal(size=shape).astype(np.float32)
    labels = random.integers(0, 3, ROWS)
    if kind == "recurrent":
        features = random.integers(0, 7, shape).astype(np.int32)
        labels = random.integers(0, 7, shape)
        labels[1, 2:] = 0
    mask = np.array([1, 1, 0, 1, 1], np.float32)
    weights = mask * np.array([1, 2, 1, 0.5, 0], np.float32)
    return Batch(*(tf.constant(part) for part in (features, labels, weights, mask)))


def one_by_one(model, weights, batch, seed):
    """The oracle: each row is a batch of its own."""
    row_seeds = seeds.split(seed, ROWS)
    rows = []
    for i in range(ROWS):
        row = tf.nest.map_structure(lambda leaf, at=i: leaf[at : at + 1], batch)
        gradients, outputs, _ = loss_gradients(model, weights, row, row_seeds[i])
        rows.append((gradients, outputs[0]))
    return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *rows)


def assert_close(actual, expected, tolerance):
    tf.nest.assert_same_structure(actual, expected)
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def in_loop(model):
    """The gradients computed in the second turn of a compiled loop."""

    @tf.function
    def run(weights, batch, seed):
        start = per_example_gradients(model, weights, batch, seed)
        return tf.while_loop(
            lambda i, _: i < 2,
            lambda i, _: (i + 1, per_example_gradients(model, weights, batch, seed)),
            (0, tf.nest.map_structure(tf.zeros_like, start)),
        )[1]

    return run


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", MODELS)
def test_equals_one_row_at_a_time(kind, dtype):
    model = MODELS[kind](dtype)
    weights, batch = model.init(SEED), batch_for(kind)
    expected = one_by_one(model, weights, batch, SEED)
    actual = per_example_gradients(model, weights, batch, SEED)
    assert_close(actual, expected, TOLERANCE[dtype])
    if dtype == tf.float32:
        assert_close(in_loop(model)(weights, batch, SEED), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("kind", MODELS)
def test_padding_gives_exactly_zero_even_where_its_loss_is_not_finite(kind):
    model = MODELS[kind](tf.float32)
    batch = batch_for(kind)
    if batch.features.dtype == tf.float32:
        bad = tf.tensor_scatter_nd_update(
            batch.features, [[2]], batch.features[2:3] * np.nan
        )
        batch = batch._replace(features=bad)
    gradients, _ = per_example_gradients(model, model.init(SEED), batch, SEED)
    for leaf in tf.nest.flatten(gradients):
        assert np.all(leaf[2] == 0)
        assert np.all(np.isfinite(leaf))


def test_the_penalty_is_left_out_and_has_a_gradient_of_its_own():
    plain = dense_classifier(6, 3, dtype=tf.float64)
    model = dense_classifier(6, 3, dtype=tf.float64, weight_penalty=0.1)
    weights, batch = model.init(SEED), batch_for("dense")
    rows, _ = per_example_gradients(model, weights, batch, SEED)
    assert_close(rows, per_example_gradients(plain, weights, batch, SEED)[0], 0)
    whole, _, _ = loss_gradients(model, weights, batch, SEED)
    penalty = penalty_gradients(model, weights, batch)
    parts = tf.nest.map_structure(
        lambda leaf, extra: tf.reduce_sum(leaf, 0) / 4 + extra, rows, penalty
    )
    assert_close(parts, whole, 1e-13)


def test_a_model_that_mixes_rows_is_refused():
    model = dense_classifier(6, 3)._replace(mixing_layers=("batch_normalization",))
    with pytest.raises(PrivacyError, match=r"batch_normalization.*LayerNormalization"):
        per_example_gradients(model, model.init(SEED), batch_for("dense"), SEED)
