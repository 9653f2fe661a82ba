"""The LSTM layer against the textbook's recurrence and against Keras."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.models import lstm as kernel
from fedtrain.models.lstm import lstm

BATCH, TIME, FEATURES, UNITS = 2, 5, 3, 4


def drawn(*shape, seed=0, dtype=np.float64):
    random = np.random.default_rng([seed, *shape])
    return tf.constant(random.normal(size=shape).astype(dtype))


def weights_of(seed=0, dtype=np.float64):
    return {
        "kernel": drawn(FEATURES, 4 * UNITS, seed=seed, dtype=dtype),
        "recurrent": drawn(UNITS, 4 * UNITS, seed=seed, dtype=dtype),
        "bias": drawn(4 * UNITS, seed=seed, dtype=dtype),
    }


def textbook(values, weights):
    rows = values.shape[0] or tf.shape(values)[0]
    hidden = cell = tf.zeros([rows, UNITS], values.dtype)
    outputs = []
    for step in range(values.shape[1]):
        sums = values[:, step] @ weights["kernel"] + hidden @ weights["recurrent"]
        let_in, forget, candidate, let_out = tf.split(sums + weights["bias"], 4, axis=1)
        kept = tf.sigmoid(forget) * cell
        cell = kept + tf.sigmoid(let_in) * tf.tanh(candidate)
        hidden = tf.sigmoid(let_out) * tf.tanh(cell)
        outputs.append(hidden)
    return tf.stack(outputs, axis=1)


def outputs_and_gradients(layer, values, weights):
    upstream = drawn(BATCH, values.shape[1], UNITS, seed=9, dtype=values.dtype.name)
    with tf.GradientTape() as tape:
        tape.watch([values, weights])
        outputs = layer(values, weights)
    found = tape.gradient(outputs, [values, weights], upstream)
    return outputs, found


def assert_close(ours, expected, atol):
    pairs = zip(tf.nest.flatten(ours), tf.nest.flatten(expected), strict=True)
    for mine, wanted in pairs:
        np.testing.assert_allclose(mine, wanted, atol=atol)


@pytest.mark.parametrize("time", [1, TIME])
def test_it_is_the_textbooks_lstm_and_so_is_its_gradient(time):
    given = (drawn(BATCH, time, FEATURES), weights_of())
    ours = outputs_and_gradients(lstm, *given)
    assert_close(ours, outputs_and_gradients(textbook, *given), 1e-12)


def test_single_precision_agrees_to_rounding():
    given = (drawn(BATCH, TIME, FEATURES, dtype="float32"), weights_of(dtype="float32"))
    ours = outputs_and_gradients(lstm, *given)
    assert_close(ours, outputs_and_gradients(textbook, *given), 2e-5)


def test_its_weights_are_those_of_keras():
    layer = keras.layers.LSTM(UNITS, return_sequences=True)
    values = drawn(BATCH, TIME, FEATURES, dtype="float32")
    expected = layer(values)
    names = ("kernel", "recurrent", "bias")
    weights = {
        name: tf.constant(value)
        for name, value in zip(names, layer.get_weights(), strict=True)
    }
    np.testing.assert_allclose(lstm(values, weights), expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_number_of_rows_may_be_open_and_the_loop_one_of_tensorflow(jit_compile):
    def descend(values, weights):
        def body(step, weights):
            _, (_, found) = outputs_and_gradients(lstm, values, weights)
            new = tf.nest.map_structure(lambda w, g: w - 0.1 * g, weights, found)
            return step + 1, new

        return tf.while_loop(lambda step, _: step < 3, body, (0, weights))[1]

    weights = expected = weights_of()
    values = drawn(BATCH, TIME, FEATURES)
    rows = None if not jit_compile else BATCH
    signature = [
        tf.TensorSpec([rows, TIME, FEATURES], tf.float64),
        tf.nest.map_structure(lambda w: tf.TensorSpec(w.shape, w.dtype), weights),
    ]
    compiled = tf.function(
        descend, autograph=False, jit_compile=jit_compile, input_signature=signature
    )
    for _ in range(3):
        _, (_, found) = outputs_and_gradients(textbook, values, expected)
        expected = tf.nest.map_structure(lambda w, g: w - 0.1 * g, expected, found)
    assert_close(compiled(values, weights), expected, 1e-12)


def test_its_gradient_can_be_vectorised_over_clients_with_weights_of_their_own():
    values = tf.stack([drawn(BATCH, TIME, FEATURES, seed=seed) for seed in range(3)])
    weights = [weights_of(seed) for seed in range(3)]
    stacked = tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *weights)

    @tf.function(autograph=False)
    def vectorised(values, stacked):
        return tf.vectorized_map(
            lambda given: outputs_and_gradients(lstm, *given),
            (values, stacked),
            fallback_to_while_loop=False,
        )

    ours = vectorised(values, stacked)
    for i, own in enumerate(weights):
        expected = outputs_and_gradients(textbook, values[i], own)
        own_part = tf.nest.map_structure(lambda leaf, i=i: leaf[i], ours)
        assert_close(own_part, expected, 1e-12)


def test_its_gradient_is_right_where_only_the_forward_pass_is_vectorised():
    values = tf.stack([drawn(BATCH, 2, FEATURES, seed=seed) for seed in range(2)])
    weights = [weights_of(seed) for seed in range(2)]
    stacked = tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *weights)

    def side_by_side(values, stacked):
        return tf.vectorized_map(
            lambda given: lstm(*given), (values, stacked), fallback_to_while_loop=False
        )

    def one_by_one(values, stacked):
        own = [tf.nest.map_structure(lambda w, i=i: w[i], stacked) for i in range(2)]
        return tf.stack([textbook(values[i], own[i]) for i in range(2)])

    @tf.function(autograph=False)
    def gradients(layer, values, stacked):
        with tf.GradientTape() as tape:
            tape.watch(stacked)
            outputs = layer(values, stacked)
        return tape.gradient(outputs, stacked)

    expected = gradients(one_by_one, values, stacked)
    assert_close(gradients(side_by_side, values, stacked), expected, 1e-12)


def test_batches_of_any_size_are_compiled_for_a_few(monkeypatch):
    """Poisson's batches have another size each time, and XLA compiles for each."""
    compiled = set()
    for name in ("_forward", "_backward"):
        monkeypatch.setattr(kernel, name, heard(getattr(kernel, name), compiled))
    open_rows = tf.function(
        gradients_of_sum,
        autograph=False,
        input_signature=[tf.TensorSpec([None, TIME, FEATURES], tf.float64)],
    )
    for rows in (1, 3, 4, 29, 37, 40):
        values = drawn(rows, TIME, FEATURES)
        ours, expected = open_rows(values), gradients_of_sum(values, textbook)
        assert_close(ours, expected, 1e-11)
    assert compiled == {4, 32, 40}


def gradients_of_sum(values, layer=lstm):
    weights = weights_of()
    with tf.GradientTape() as tape:
        tape.watch([values, weights])
        total = tf.reduce_sum(tf.square(layer(values, weights)))
    return tape.gradient(total, [values, weights])


def heard(function, compiled):
    """``function``, which tells for which batch sizes XLA compiles it."""

    def call(values, *rest):
        tf.py_function(partial(note_size, compiled), [tf.shape(values)[1]], [])
        return function(values, *rest)

    return call


def note_size(compiled, size):
    compiled.add(int(size))
