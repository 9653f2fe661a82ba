"""The ready-made character model."""

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.local_sgd import loss_gradients
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import Batch, ModelWeights
from fedtrain.models.recurrent import character_lstm

VOCABULARY, BATCH, TIME = 7, 3, 6
MODEL = character_lstm(VOCABULARY, embedding=2, units=(4, 3))


def batch():
    ids = np.random.default_rng(0).integers(1, VOCABULARY, [BATCH, TIME + 1])
    ids = tf.constant(ids, tf.int32)
    ones = tf.ones([BATCH])
    return Batch(ids[:, :-1], ids[:, 1:], weights=ones, mask=ones)


def test_weights_start_as_in_keras():
    weights = MODEL.init(seeds.root(0)).trainable
    assert weights["lstm_2"]["kernel"].shape == [4, 12]
    recurrent = weights["lstm_1"]["recurrent"]
    np.testing.assert_allclose(
        recurrent @ tf.transpose(recurrent), np.eye(4), atol=1e-6
    )
    np.testing.assert_array_equal(weights["lstm_2"]["bias"], np.repeat([0, 1, 0, 0], 3))


def test_outputs_are_logits_of_each_place_and_look_only_back():
    weights, (features, *_) = MODEL.init(seeds.root(0)), batch()

    def outputs(ids):
        seed = tf.zeros([2], tf.int32)
        return MODEL.forward(weights, ids, training=True, seed=seed).outputs

    before = outputs(features)
    changed = tf.concat([features[:, :-1], features[:, -1:] % 6 + 1], axis=1)
    after = outputs(changed)
    assert before.shape == [BATCH, TIME, VOCABULARY]
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert np.abs(before[:, -1] - after[:, -1]).max() > 1e-4


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_is_the_slope_of_the_loss(jit_compile):
    weights = MODEL.init(seeds.root(0))
    seed = tf.zeros([2], tf.int32)

    @tf.function(autograph=False, jit_compile=jit_compile)
    def gradients(weights):
        return loss_gradients(MODEL, weights, batch(), seed)[0]

    def loss(step):
        moved = tf.nest.map_structure(lambda w, g: w + step * g, weights, found)
        outputs = MODEL.forward(
            moved, batch().features, training=True, seed=seed
        ).outputs
        losses = MODEL.loss(batch().labels, outputs)
        return tf.reduce_sum(losses.total) / tf.reduce_sum(losses.count)

    found = ModelWeights(gradients(weights))
    slope = (loss(0.01) - loss(-0.01)) / 0.02
    squares = [tf.reduce_sum(leaf**2) for leaf in tf.nest.flatten(found)]
    np.testing.assert_allclose(slope, tf.add_n(squares), rtol=1e-3)


def test_sizes_have_to_be_positive():
    with pytest.raises(ConfigError, match="units_2"):
        character_lstm(VOCABULARY, units=(4, 0))
