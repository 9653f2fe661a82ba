import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from fedtrain.core import nests, seeds
from fedtrain.models.keras import keras_model
from fedtrain.models.losses import masked_token_cross_entropy, sparse_cross_entropy
from fedtrain.models.model import (
    Batch,
    ForwardPass,
    Model,
    ModelWeights,
    PerExample,
    mean_loss,
)
from fedtrain.privacy.clipping import sum_by_entity, sum_of_clipped
from fedtrain.privacy.ghost_clipping import clipped_sum, obstacle

SEED = seeds.root(3)
ROWS = 6
CLIPPING_NORM = 0.4
TOLERANCE = {tf.float32: 1e-5, tf.float64: 1e-10}


def pure(outputs, dtype=tf.float32, *, loss=sparse_cross_entropy, scale=0.6, **shapes):
    """A model and its weights: outputs are a function of weights and features."""
    random = np.random.default_rng(0)
    weights = ModelWeights(
        {
            name: tf.constant(random.normal(size=shape) * scale, dtype)
            for name, shape in shapes.items()
        }
    )

    def forward(given, features, *, training, seed):
        del training, seed
        if features.dtype.is_floating:
            features = tf.cast(features, dtype)
        return ForwardPass(outputs(given.trainable, features), (), tf.zeros([]))

    return Model(lambda seed: weights, forward, loss, {})


def batch_of(shape, *, tokens=False, labels=None, rows=ROWS):
    random = np.random.default_rng(1)
    features = random.normal(size=[rows, *shape]).astype(np.float32)
    if tokens:
        features = random.integers(0, 5, [rows, *shape]).astype(np.int32)
    labels = random.integers(0, 3, [rows, *(labels or [])])
    mask = np.ones(rows, np.float32)
    mask[2:3] = 0
    weights = mask * random.uniform(0, 2, rows).astype(np.float32)
    return Batch(*(tf.constant(part) for part in (features, labels, weights, mask)))


def oracle(model, weights, batch, rows_per_unit=1, norm=CLIPPING_NORM):
    """Each row's gradient by itself, in plain Python."""
    rows = []
    zero = nests.zeros_like(weights.trainable)
    for i in range(batch.mask.shape[0]):
        row = tf.nest.map_structure(lambda leaf, at=i: leaf[at : at + 1], batch)
        with tf.GradientTape() as tape:
            tape.watch(weights.trainable)
            result = model.forward(weights, row.features, training=True, seed=SEED)
            loss = mean_loss(model, row, result.outputs)
        own = tape.gradient(loss, weights.trainable)
        own = tf.nest.map_structure(tf.convert_to_tensor, own)
        rows.append(own if batch.mask[i] else zero)
    stacked = tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *rows)
    return sum_of_clipped(sum_by_entity(stacked, rows_per_unit), norm)


def ghost(model, weights, batch, rows_per_unit=1, norm=CLIPPING_NORM):
    return clipped_sum(
        model,
        weights,
        batch,
        SEED,
        clipping_norm=norm,
        rows_per_unit=rows_per_unit,
    )[0]


def assert_close(actual, expected, tolerance=1e-5):
    tf.nest.assert_same_structure(actual, expected)
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def conv(weights, images):
    values = tf.nn.relu(tf.nn.conv2d(images, weights["filter"], 2, "SAME"))
    values = tf.nn.conv2d(
        values, weights["second"], 1, [[0, 0], [1, 0], [1, 1], [0, 0]]
    )
    return tf.reduce_mean(values + weights["bias"], [1, 2])


def separable(weights, images):
    values = tf.nn.depthwise_conv2d(images, weights["deep"], [1, 1, 1, 1], "SAME")
    return tf.reduce_max(tf.tanh(values), [1, 2]) @ weights["out"]


def sequence(weights, tokens):
    values = tf.gather(weights["table"], tokens)
    values = values * weights["gain"] - weights["shift"]
    values = tf.tanh(tf.einsum("btd,dhe->bthe", values, weights["heads"]))
    return tf.reshape(values, [-1, 7, 4]) @ weights["out"]


def one_dimensional(weights, series):
    values = tf.nn.conv1d(series, weights["filter"], 1, "VALID")
    return tf.reduce_sum(tf.nn.relu(values), 1)


def unrolled(weights, series):
    state = tf.zeros_like(series[:, 0]) @ weights["first"]
    for step in range(series.shape[1]):
        state = tf.tanh(series[:, step] @ weights["first"] + state @ weights["again"])
    return state


def turned(weights, values):
    cut, rest = tf.split(weights["both"], [2, 4], axis=1)
    values = tf.matmul(values, rest, transpose_b=True) + (values @ cut) @ cut[:2]
    return values @ tf.reshape(weights["flat"], [5, 3])


def late(weights, values):
    return values @ tf.split(weights["both"], 2, axis=1)[1] + weights["bias"]


CASES = {
    "convolution": (
        conv,
        [6, 6, 2],
        {},
        {"filter": [3, 3, 2, 4], "second": [2, 2, 4, 3], "bias": [3]},
    ),
    "few places": (
        conv,
        [3, 3, 2],
        {},
        {"filter": [3, 3, 2, 4], "second": [2, 2, 4, 3], "bias": [3]},
    ),
    "depthwise": (separable, [4, 4, 2], {}, {"deep": [3, 3, 2, 2], "out": [4, 3]}),
    "sequence": (
        sequence,
        [7],
        {"tokens": True, "labels": [7]},
        {
            "table": [5, 4],
            "gain": [4],
            "shift": [7, 1],
            "heads": [4, 2, 2],
            "out": [4, 3],
        },
    ),
    "one dimension": (one_dimensional, [5, 2], {}, {"filter": [2, 2, 3]}),
    "unrolled": (unrolled, [4, 5], {}, {"first": [5, 3], "again": [3, 3]}),
    "parts": (late, [4], {}, {"both": [4, 6], "bias": [3]}),
}


def case(name, dtype=tf.float32):
    outputs, shape, options, shapes = CASES[name]
    loss = masked_token_cross_entropy if options else sparse_cross_entropy
    model = pure(outputs, dtype, loss=loss, **shapes)
    return model, model.init(SEED), batch_of(shape, **options)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_clipped_gradients_of_each_row(name, dtype):
    given_ = case(name, dtype)
    assert obstacle(*given_) is None
    for norm in (CLIPPING_NORM, 100.0):
        expected = oracle(*given_, norm=norm)
        assert_close(ghost(*given_, norm=norm), expected, TOLERANCE[dtype] * (1 + norm))


@pytest.mark.parametrize("name", CASES)
def test_an_entitys_rows_are_summed_before_they_are_clipped(name):
    given_ = case(name, tf.float64)
    for rows_per_unit in (2, 4):
        expected = oracle(*given_, rows_per_unit)
        assert_close(ghost(*given_, rows_per_unit), expected, 1e-10)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=0, max_size=2),
    st.sampled_from(["flat", "sequence", "normalised"]),
    st.floats(0.05, 20),
    st.integers(1, 9),
)
def test_equals_the_oracle_for_random_dense_models(hidden, kind, norm, rows):
    sizes = [4, *hidden, 3]
    shapes = {f"kernel_{i}": list(s) for i, s in enumerate(itertools.pairwise(sizes))}
    shapes |= {f"bias_{i}": [size] for i, size in enumerate(sizes[1:])}

    def outputs(weights, values):
        for i in range(len(sizes) - 1):
            values = values @ weights[f"kernel_{i}"] + weights[f"bias_{i}"]
            if kind == "normalised":
                mean, variance = tf.nn.moments(values, [-1], keepdims=True)
                values = (values - mean) * tf.math.rsqrt(variance + 1e-2)
            values = tf.tanh(values)
        return tf.reduce_mean(values, 1) if kind == "sequence" else values

    model = pure(outputs, tf.float64, **shapes)
    weights = model.init(SEED)
    batch = batch_of([3, 4] if kind == "sequence" else [4], rows=rows)
    assert obstacle(model, weights, batch) is None
    expected = oracle(model, weights, batch, norm=norm)
    assert_close(ghost(model, weights, batch, norm=norm), expected, 1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, ROWS - 1), st.floats(0.01, 30), st.sampled_from(sorted(CASES)))
def test_leaving_one_row_out_moves_the_sum_by_the_clipping_norm(left_out, scale, name):
    model, weights, batch = case(name)
    if batch.features.dtype.is_floating:
        batch = batch._replace(features=batch.features * scale)
    rest = [i for i in range(ROWS) if i != left_out]
    fewer = Batch(*(tf.gather(leaf, rest) for leaf in batch))
    moved = nests.subtract(ghost(model, weights, batch), ghost(model, weights, fewer))
    assert float(nests.global_norm(moved)) <= CLIPPING_NORM * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", ["convolution", "one dimension", "unrolled", "parts"])
def test_a_row_that_is_not_finite_counts_as_zero(name, bad):
    model, weights, batch = case(name)
    features = batch.features.numpy()
    features[1] = bad
    spoilt = batch._replace(features=tf.constant(features))
    rest = [i for i in range(ROWS) if i != 1]
    fewer = Batch(*(tf.gather(leaf, rest) for leaf in batch))
    if np.isfinite(bad) and name == "unrolled":
        return  # a saturated tanh: a finite gradient
    assert_close(ghost(model, weights, spoilt), ghost(model, weights, fewer))


@pytest.mark.parametrize("rows_per_unit", [1, 2])
@pytest.mark.parametrize("name", ["convolution", "parts"])
def test_padding_counts_as_zero_whatever_it_holds(name, rows_per_unit):
    model, weights, batch = case(name)
    features = batch.features.numpy()
    features[2] = np.nan  # the padded row
    spoilt = batch._replace(features=tf.constant(features))
    expected = ghost(model, weights, batch, rows_per_unit)
    assert_close(ghost(model, weights, spoilt, rows_per_unit), expected)
    empty = batch._replace(mask=0 * batch.mask, weights=0 * batch.mask)
    for leaf in tf.nest.flatten(ghost(model, weights, empty, rows_per_unit)):
        assert np.all(np.asarray(leaf) == 0)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_inside_a_compiled_loop(jit_compile):
    model, weights, batch = case("convolution")

    @tf.function(autograph=False, jit_compile=jit_compile)
    def run(weights, batch):
        return tf.while_loop(
            lambda i, _: i < 2,
            lambda i, _: (i + 1, ghost(model, weights, batch)),
            (0, nests.zeros_like(weights.trainable)),
        )[1]

    assert_close(run(weights, batch), oracle(model, weights, batch))


def test_no_gradient_of_a_row_is_written_down():
    model = pure(
        lambda weights, x: tf.tanh(x @ weights["large"]) @ weights["out"],
        large=[40, 50],
        out=[50, 3],
    )
    weights, batch = model.init(SEED), batch_of([40])

    @tf.function(autograph=False)
    def run(batch):
        return ghost(model, weights, batch)

    graph = run.get_concrete_function(batch).graph
    bodies = [graph]
    bodies += [
        graph._get_function(f.signature.name).graph
        for f in graph.as_graph_def().library.function
    ]
    shapes = [
        tensor.shape
        for body in bodies
        for operation in body.get_operations()
        for tensor in operation.outputs
    ]
    assert any(shape == [40, 50] for shape in shapes)
    assert not any(shape.rank == 3 for shape in shapes)


def test_a_weight_used_in_two_ways_has_every_rows_gradient_computed():
    tied = pure(
        lambda weights, tokens: tf.matmul(
            tf.gather(weights["table"], tokens), weights["table"], transpose_b=True
        ),
        loss=masked_token_cross_entropy,
        table=[5, 4],
    )
    given_ = tied, tied.init(SEED), batch_of([7], tokens=True, labels=[7])
    assert "several ways" in obstacle(*given_)
    assert_close(ghost(*given_), oracle(*given_))


def test_a_model_that_mixes_rows_in_secret_is_computed_row_by_row():
    mixing = pure(
        lambda weights, x: (x - tf.reduce_mean(x, 0)) @ weights["kernel"],
        kernel=[4, 3],
    )
    given_ = mixing, mixing.init(SEED), batch_of([4])
    assert "rows may meet" in obstacle(*given_)
    assert_close(ghost(*given_), oracle(*given_))


def test_a_model_that_looks_at_a_rows_place_is_computed_row_by_row():
    def outputs(weights, values):
        place = tf.range(tf.shape(values)[0])
        sign = 1.0 - 2.0 * tf.cast(place % 2, values.dtype)
        return (values * sign[:, tf.newaxis]) @ weights["kernel"]

    model = pure(outputs, kernel=[4, 3])
    assert obstacle(model, model.init(SEED), batch_of([4])) is not None


def own_gradient(values, *, mixes):
    @tf.custom_gradient
    def function(x):
        def gradient(upstream):
            return upstream * (tf.reduce_sum(x) if mixes else 2.0 * x)

        return x * x, gradient

    return function(values)


@pytest.mark.parametrize("mixes", [False, True])
def test_a_gradient_of_the_users_own_is_looked_at(mixes):
    model = pure(
        lambda weights, x: own_gradient(x @ weights["kernel"], mixes=mixes),
        kernel=[4, 3],
    )
    given_ = model, model.init(SEED), batch_of([4])
    found = obstacle(*given_)
    assert "may mix rows" in found if mixes else found is None
    assert_close(ghost(*given_), oracle(*given_))


def sequential(shape, *rest, dtype=None):
    inputs = outputs = keras.Input(shape, dtype=dtype)
    for layer in rest:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


KERAS = {
    "dense": lambda: (
        sequential(
            [5],
            layers.Dense(4, activation="relu", kernel_regularizer="l2"),
            layers.LayerNormalization(),
            layers.Dense(3, activation="softmax"),
        ),
        {},
    ),
    "convolution": lambda: (
        sequential(
            [8, 8, 2],
            layers.Conv2D(4, 3, strides=2, activation="relu"),
            layers.GroupNormalization(2),
            layers.SeparableConv2D(4, 2),
            layers.AveragePooling2D(2, strides=1),
            layers.Flatten(),
            layers.Dense(3, activation="swish"),
        ),
        {},
    ),
    "tokens": lambda: (
        sequential(
            [7],
            layers.Embedding(5, 4, mask_zero=True),
            layers.Dense(6, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dense(9),
            dtype="int32",
        ),
        {"tokens": True, "labels": [7]},
    ),
    "series": lambda: (
        sequential(
            [6, 2],
            layers.Conv1D(4, 2, padding="causal"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ),
        {},
    ),
    "attention": lambda: (
        (
            lambda x: keras.Model(
                x,
                layers.Dense(3)(
                    layers.GlobalMaxPooling1D()(layers.MultiHeadAttention(2, 3)(x, x))
                ),
            )
        )(keras.Input([5, 4])),
        {},
    ),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras_models(name):
    keras.utils.set_random_seed(1)
    made, options = KERAS[name]()
    logits = name != "dense"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    model = keras_model(made, loss=loss)
    weights = tf.nest.map_structure(lambda w: 1.1 * w + 0.05, model.init(SEED))
    given_ = model, weights, batch_of(made.input_shape[1:], **options)
    assert obstacle(*given_) is None
    assert_close(ghost(*given_), oracle(*given_))
    assert_close(ghost(*given_, 3), oracle(*given_, 3))


def squared_error(labels, outputs):
    return PerExample(tf.square(outputs - labels)[:, 0], tf.ones_like(outputs[:, 0]))


def test_a_tiny_input_times_a_huge_error_is_clipped():
    """The input's squares are below what float32 holds, the gradient is not."""
    model = pure(
        lambda weights, x: x @ weights["kernel"],
        loss=squared_error,
        scale=0.0,
        kernel=[1000, 1],
    )
    batch = Batch(
        tf.fill([1, 1000], 1.05e-19), tf.fill([1, 1], 9e18), tf.ones(1), tf.ones(1)
    )
    given_ = model, model.init(SEED), batch
    assert obstacle(*given_) is None
    assert float(nests.global_norm(ghost(*given_))) <= CLIPPING_NORM * (1 + 1e-5)


def test_lookups_that_cancel_leave_no_rounding_behind():
    """Two lookups of one row of a table, whose huge gradients add up to nothing."""
    tokens = pure(
        lambda weights, given: tf.reduce_sum(
            tf.gather(weights["table"], tf.cast(given[:, 0], tf.int32))
            * given[:, 1, :, tf.newaxis],
            1,
        ),
        loss=squared_error,
        table=[2, 1],
    )
    small, huge = [[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [1e9, -1e9]]
    rows = tf.constant([small, huge])
    batch = Batch(rows, tf.ones([2, 1]), tf.ones(2), tf.ones(2))
    weights = tokens.init(SEED)
    fewer = Batch(*(leaf[:1] for leaf in batch))
    assert obstacle(tokens, weights, batch) is None
    moved = nests.subtract(ghost(tokens, weights, batch), ghost(tokens, weights, fewer))
    assert float(nests.global_norm(moved)) <= CLIPPING_NORM * 1e-2


def test_a_weight_that_was_rounded_on_the_way_has_every_rows_gradient_computed():
    model = pure(
        lambda weights, x: (
            x @ tf.cast(tf.cast(weights["kernel"], tf.bfloat16), tf.float32)
        ),
        kernel=[4, 3],
    )
    assert "Cast" in obstacle(model, model.init(SEED), batch_of([4]))


def test_dropout_is_drawn_for_each_row_and_from_the_seed():
    made = sequential([30], layers.Dropout(0.5), layers.Dense(3, use_bias=False))
    model = keras_model(made, loss=keras.losses.SparseCategoricalCrossentropy(True))
    batch = batch_of([30])._replace(features=tf.ones([ROWS, 30]))
    weights = model.init(SEED)
    assert obstacle(model, weights, batch) is None
    # A row whose input is dropped has no gradient there; rows must not drop the same.
    alone = [
        ghost(
            model,
            weights,
            batch._replace(mask=tf.one_hot(i, ROWS), weights=tf.one_hot(i, ROWS)),
        )
        for i in (0, 1)
    ]
    dropped = [np.asarray(sums[0])[:, 0] == 0 for sums in alone]
    assert all(5 < kept.sum() < 25 for kept in dropped)
    assert np.any(dropped[0] != dropped[1])
    assert_close(ghost(model, weights, batch), ghost(model, weights, batch), 0)
