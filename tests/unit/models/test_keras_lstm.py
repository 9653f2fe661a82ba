"""Keras's LSTM layers through the library's own loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.local_sgd import loss_gradients
from fedtrain.core import seeds
from fedtrain.models.keras import keras_model
from fedtrain.models.keras_lstm import own_lstm_loops
from fedtrain.models.model import Batch

ROWS, TIME = 3, 5
FEATURES = np.random.default_rng(0).normal(size=[ROWS, TIME, 2]).astype(np.float32)
SEED = seeds.root(0)


def bidirectional(units, **options):
    return keras.layers.Bidirectional(keras.layers.LSTM(units, **options))


PLAIN = {
    "last": lambda: [keras.layers.LSTM(4)],
    "backwards": lambda: [keras.layers.LSTM(4, go_backwards=True)],
    "two": lambda: [
        keras.layers.LSTM(4, return_sequences=True),
        keras.layers.LSTM(3, go_backwards=True, return_sequences=True),
        keras.layers.Flatten(),
    ],
    "both_ways": lambda: [bidirectional(4)],
}
OTHER = {
    "activation": {"activation": "relu"},
    "gates": {"recurrent_activation": "hard_sigmoid"},
    "no_bias": {"use_bias": False},
    "recurrent_dropout": {"recurrent_dropout": 0.5},
    "unrolled": {"unroll": True},
}


def built(make, *, masked=False):
    keras.utils.set_random_seed(0)
    masks = [keras.layers.Masking()] if masked else []
    layers = [keras.Input([TIME, 2]), *masks, *make(), keras.layers.Dense(2)]
    return keras.Sequential(layers)


def takes_own_loop(layer):
    with own_lstm_loops([layer]):
        return "call" in vars(layer)


@pytest.mark.parametrize("name", PLAIN)
def test_outputs_and_gradients_equal_those_of_keras(name):
    original = built(PLAIN[name])
    labels = tf.constant([0, 1, 0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_model(original, loss=loss)
    assert any(takes_own_loop(layer) for layer in original._flatten_layers())
    batch = Batch(tf.constant(FEATURES), labels, tf.ones([ROWS]), tf.ones([ROWS]))

    gradients, outputs, _ = loss_gradients(model, model.init(SEED), batch, SEED)
    with tf.GradientTape() as tape:
        expected = original(FEATURES, training=True)
        total = loss(labels, expected)
    wanted = tape.gradient(total, original.trainable_variables)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    for ours, theirs in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", OTHER)
def test_a_layer_with_other_options_keeps_its_own_loop(name):
    model = built(lambda: [keras.layers.LSTM(4, **OTHER[name])])
    assert not any(takes_own_loop(layer) for layer in model._flatten_layers())


def test_a_masked_layer_gives_what_it_gives_in_keras():
    original = built(PLAIN["last"], masked=True)
    model = keras_model(original, loss="mse")
    features = np.where(np.arange(TIME)[:, None] < 3, FEATURES, 0.0)
    ours = model.forward(
        model.init(SEED), tf.constant(features), training=False, seed=SEED
    )
    np.testing.assert_allclose(ours.outputs, original(features), atol=1e-6)


def test_afterwards_the_layer_is_as_before():
    layer = keras.layers.LSTM(4)
    layer(FEATURES)
    before = dict(vars(layer))
    with pytest.raises(KeyError), own_lstm_loops([layer]):
        raise KeyError
    assert vars(layer) == before
