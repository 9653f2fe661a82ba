"""Every kind of Keras model, adapted, equals the same model used the ordinary way."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fedtrain.client_work.local_sgd import loss_gradients
from fedtrain.client_work.per_example import per_example_gradients
from fedtrain.core import nests, seeds
from fedtrain.models.keras import assign, keras_model, weight_variables
from fedtrain.models.model import Batch, ModelWeights, mean_loss

SEED = seeds.root(5)
ROWS = 6
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RANDOM = np.random.default_rng(2)
VECTORS = RANDOM.normal(size=[ROWS, 5]).astype(np.float32)
IMAGES = RANDOM.normal(size=[ROWS, 8, 8, 2]).astype(np.float32)
TOKENS = RANDOM.integers(1, 9, [ROWS, 7]).astype(np.int32)
TOKENS[:, 5:] *= RANDOM.integers(0, 2, [ROWS, 2]).astype(np.int32)
CLASSES = RANDOM.integers(0, 3, ROWS)


class Subclassed(keras.Model):
    """Weights in lists, a shared layer, and a condition on a tensor's shape."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.shared = layers.Dense(5, activation="tanh")
        self.towers = [layers.Dense(5), layers.LayerNormalization()]
        self.head = layers.Dense(3)

    def call(self, inputs):
        values = self.shared(inputs)
        for layer in self.towers:
            values = layer(values) + self.shared(values)
        return self.head(values)


class Plain(keras.Model):
    """What ``Decorated`` should compute: in Keras 3 it goes stale even by itself."""

    def __init__(self):
        super().__init__(name="plain")
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


class Decorated(Plain):
    """A call under tf.function, whose first trace would keep stale tensors."""

    @tf.function
    def call(self, inputs):
        if tf.reduce_sum(inputs) > 1e9:
            inputs = inputs * 2.0
        return self.dense(inputs)


def sequential(shape, *rest, dtype=None):
    inputs = keras.Input(shape, dtype=dtype)
    outputs = inputs
    for layer in rest:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def dense():
    regularizer = keras.regularizers.L2(0.01)
    return keras.Sequential(
        [
            keras.Input([5]),
            layers.Dense(4, activation="relu", kernel_regularizer=regularizer),
            layers.LayerNormalization(),
            layers.Dense(3),
        ]
    )


def batch_norm():
    return sequential(
        [5], layers.Dense(4), layers.BatchNormalization(momentum=0.8), layers.Dense(3)
    )


def conv():
    return sequential(
        [8, 8, 2],
        layers.Conv2D(4, 3, activation="relu"),
        layers.GroupNormalization(2),
        layers.SeparableConv2D(4, 2),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(3),
    )


def conv_batch_norm():
    return sequential(
        [8, 8, 2],
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    )


def lstm():
    return sequential(
        [7], layers.Embedding(9, 4), layers.LSTM(5), layers.Dense(3), dtype="int32"
    )


def masked_lstm():
    embedding = layers.Embedding(9, 4, mask_zero=True)
    return sequential([7], embedding, layers.LSTM(5), layers.Dense(3), dtype="int32")


def gru():
    embedding = layers.Embedding(9, 4, mask_zero=True)
    recurrent = layers.Bidirectional(layers.GRU(3))
    return sequential([7], embedding, recurrent, layers.Dense(3), dtype="int32")


def tokens():
    return sequential(
        [7],
        layers.Embedding(9, 4, mask_zero=True),
        layers.LSTM(5, return_sequences=True),
        layers.Dense(9),
        dtype="int32",
    )


def several_inputs():
    first, second = keras.Input([5], name="first"), keras.Input([3], name="second")
    both = layers.Concatenate()([layers.Dense(4)(first), layers.Dense(4)(second)])
    return keras.Model({"first": first, "second": second}, layers.Dense(3)(both))


def attention():
    inputs = keras.Input([5, 4])
    values = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalMaxPooling1D()(values)))


def frozen():
    model = batch_norm()
    model.layers[1].trainable = model.layers[2].trainable = False
    return model


def softmax():
    return sequential([5], layers.Dense(3, activation="softmax"))


def built(model, features):
    model(features)
    return model


TWO = {"first": VECTORS, "second": VECTORS[:, :3] * 2}
SERIES = RANDOM.normal(size=[ROWS, 5, 4]).astype(np.float32)
MODELS = {
    "dense": (dense, VECTORS),
    "batch_norm": (batch_norm, VECTORS),
    "conv": (conv, IMAGES),
    "conv_batch_norm": (conv_batch_norm, IMAGES),
    "lstm": (lstm, TOKENS),
    "masked_lstm": (masked_lstm, TOKENS),
    "gru": (gru, TOKENS),
    "tokens": (tokens, TOKENS),
    "several_inputs": (several_inputs, TWO),
    "attention": (attention, SERIES),
    "frozen": (frozen, VECTORS),
    "softmax": (softmax, VECTORS),
    "subclassed": (lambda: built(Subclassed(), VECTORS), VECTORS),
    "decorated": (lambda: built(Decorated(), VECTORS), VECTORS),
}


# Vectorising a loop takes long to trace; the loop of another test is vectorised too.
SLOW_BY_ROW = {"lstm", "gru", "masked_lstm", "tokens"}
BY_ROW = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_BY_ROW else [])
    for name in MODELS
    if "batch_norm" not in name
]


@pytest.fixture(params=MODELS)
def case(request):
    """A Keras model with weights of its own, the adapted one, and a batch."""
    make, features = MODELS[request.param]
    keras.utils.set_random_seed(1)
    original = make()
    is_tokens = request.param == "tokens"
    labels = np.roll(TOKENS, -1, 1).astype(np.int64) if is_tokens else CLASSES
    logits = request.param != "softmax"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    adapted = keras_model(original, loss=loss)
    batch = Batch(
        tf.nest.map_structure(tf.constant, features),
        tf.constant(labels),
        tf.ones([ROWS]),
        tf.ones([ROWS]),
    )
    return original, adapted, batch, loss


def shifted(weights):
    """Other weights than the variables hold, so that reading those would show."""
    return tf.nest.map_structure(
        lambda leaf: leaf * 1.1 + 0.05 if leaf.dtype.is_floating else leaf, weights
    )


def ordinary_step(model, batch, loss, rate):
    """One step of Keras's own loss on the model's own variables."""
    variables, _ = weight_variables(model)
    with tf.GradientTape() as tape:
        outputs = model(batch.features, training=True)
        total = loss(batch.labels, outputs) + sum(model.losses)
    raw = [getattr(variable, "value", variable) for variable in variables]
    raw = variables if callable(raw[0]) else raw
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(total, raw)]
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign(tf.convert_to_tensor(variable) - rate * gradient)
    return outputs, total, gradients


def adapted_step(model, weights, batch, rate):
    gradients, outputs, state = loss_gradients(model, weights, batch, SEED)
    step = nests.scale(gradients, rate)
    moved = nests.subtract(weights.trainable, step)
    return ModelWeights(moved, state), outputs, gradients


def values_of(outputs):
    return getattr(outputs, "values", outputs)


def assert_close(actual, expected, tolerance=2e-6):
    pairs = zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_outputs_gradients_statistics_and_three_steps_equal_keras(case):
    original, adapted, batch, loss = case
    weights = shifted(adapted.init(SEED))
    before = [v.numpy() for group in weight_variables(original) for v in group]
    states = [(weights, None, None)]
    for _ in range(3):
        states.append(adapted_step(adapted, states[-1][0], batch, 0.1))
    after = [v.numpy() for group in weight_variables(original) for v in group]
    assert_close(after, before, 0)

    if isinstance(original, Decorated):
        original = built(Plain(), VECTORS)
    assign(weights, original)
    for expected, outputs, gradients in states[1:]:
        kept, _, kept_gradients = ordinary_step(original, batch, loss, 0.1)
        assert_close(values_of(outputs), kept)
        assert_close(gradients, tuple(kept_gradients))
        now = [v.numpy() for group in weight_variables(original) for v in group]
        assert_close(now, expected)
    result = adapted.forward(states[-1][0], batch.features, training=False, seed=SEED)
    kept = original(batch.features, training=False)
    assert_close(values_of(result.outputs), kept)
    total = mean_loss(adapted, batch, result.outputs) + result.penalty
    assert_close(total, loss(batch.labels, kept) + sum(original.losses))


def test_a_compiled_loop_equals_plain_python(case):
    _, adapted, batch, _ = case
    weights = adapted.init(SEED)
    expected = weights
    for _ in range(2):
        expected, _, _ = adapted_step(adapted, expected, batch, 0.1)

    @tf.function
    def loop(weights):
        return tf.while_loop(
            lambda i, _: i < 2,
            lambda i, now: (i + 1, adapted_step(adapted, now, batch, 0.1)[0]),
            (0, weights),
        )[1]

    assert_close(loop(weights), expected)


@pytest.mark.parametrize("case", BY_ROW, indirect=True)
def test_per_example_gradients_equal_one_row_at_a_time(case):
    _, adapted, batch, _ = case
    weights = adapted.init(SEED)
    gradients, _ = per_example_gradients(adapted, weights, batch, SEED)
    penalty = loss_gradients(
        adapted, weights, batch._replace(weights=0 * batch.mask), SEED
    )
    row_seeds = seeds.split(SEED, ROWS)
    for i in (0, ROWS - 1):
        row = tf.nest.map_structure(lambda leaf, at=i: leaf[at : at + 1], batch)
        expected, _, _ = loss_gradients(adapted, weights, row, row_seeds[i])
        expected = nests.subtract(expected, penalty[0])
        mine = tf.nest.map_structure(lambda leaf, at=i: leaf[at], gradients)
        assert_close(mine, expected)
