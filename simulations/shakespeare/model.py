"""The next-character model of Reddi et al. (2021): embedding 8, two LSTMs of 256."""

import math
from typing import Any

import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.models.losses import masked_token_accuracy, masked_token_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights
from simulations.shakespeare.lstm import lstm


def next_character_model(
    vocabulary_size: int, *, embedding: int = 8, units: int = 256
) -> Model:
    """Logits [batch, time, vocabulary] for ids [batch, time]; id 0 is padding.

    Weights start as in Keras: Glorot's kernels, orthogonal recurrent weights, forget
    biases of 1. Loss and accuracy are means over the real characters.
    """

    def init(seed: seeds.Seed) -> ModelWeights:
        first, second, *own = tf.unstack(seeds.split(seed, 4))
        table = 0.1 * seeds.uniform([vocabulary_size, embedding], own[0]) - 0.05
        return ModelWeights(
            {
                "embedding": table,
                "lstm_1": _lstm_weights(embedding, units, first),
                "lstm_2": _lstm_weights(units, units, second),
                "kernel": _glorot(units, vocabulary_size, own[1]),
                "bias": tf.zeros([vocabulary_size]),
            }
        )

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        layers = weights.trainable
        values = tf.gather(layers["embedding"], features)
        values = lstm(lstm(values, layers["lstm_1"]), layers["lstm_2"])
        outputs = values @ layers["kernel"] + layers["bias"]
        return ForwardPass(outputs, weights.state, 0.0)

    return Model(
        init=init,
        forward=forward,
        loss=masked_token_cross_entropy,
        metrics={"accuracy": masked_token_accuracy},
        name="next_character_model",
    )


def _lstm_weights(features: int, units: int, seed: seeds.Seed) -> dict[str, Any]:
    kernel_seed, recurrent_seed = tf.unstack(seeds.split(seed, 2))
    square = seeds.normal([4 * units, units], recurrent_seed, stddev=1.0)
    basis, triangle = tf.linalg.qr(square)
    zeros, ones = tf.zeros([units]), tf.ones([units])
    return {
        "kernel": _glorot(features, 4 * units, kernel_seed),
        "recurrent": tf.transpose(basis * tf.sign(tf.linalg.diag_part(triangle))),
        "bias": tf.concat([zeros, ones, zeros, zeros], axis=0),
    }


def _glorot(fan_in: int, fan_out: int, seed: seeds.Seed) -> Any:
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return (2.0 * seeds.uniform([fan_in, fan_out], seed) - 1.0) * limit
