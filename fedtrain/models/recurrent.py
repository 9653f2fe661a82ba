"""A ready-made next-character model: an embedding, LSTM layers and logits."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from fedtrain.core import seeds, validate
from fedtrain.models.losses import masked_token_accuracy, masked_token_cross_entropy
from fedtrain.models.lstm import lstm_over_time
from fedtrain.models.model import ForwardPass, Model, ModelWeights


def character_lstm(
    vocabulary: int, *, embedding: int = 8, units: Sequence[int] = (256, 256)
) -> Model:
    """Logits [batch, time, vocabulary] for ids [batch, time]; id 0 is padding.

    Weights start as in Keras: Glorot's kernels, orthogonal recurrent weights, forget
    biases of 1. Loss and accuracy are means over the real characters.

    Args:
      vocabulary: Number of ids, padding included.
      embedding: Length of a character's vector.
      units: Of each LSTM layer, the first one first.

    Source:
      Reddi et al. (2021), https://arxiv.org/abs/2003.00295, with the default sizes.
    """
    sizes = {f"units_{i}": size for i, size in enumerate(units, start=1)}
    validate.positive_integer(vocabulary=vocabulary, embedding=embedding, **sizes)
    names = [f"lstm_{i}" for i, _ in enumerate(units, start=1)]

    def init(seed: seeds.Seed) -> ModelWeights:
        *layer_seeds, table_seed, kernel_seed = tf.unstack(
            seeds.split(seed, len(names) + 2)
        )
        fans_in, last = [embedding, *units[:-1]], [embedding, *units][-1]
        layers = zip(names, fans_in, units, layer_seeds, strict=True)
        weights = {name: lstm_weights(*layer) for name, *layer in layers}
        weights["embedding"] = (
            0.1 * seeds.uniform([vocabulary, embedding], table_seed) - 0.05
        )
        weights["kernel"] = _glorot(last, vocabulary, kernel_seed)
        weights["bias"] = tf.zeros([vocabulary])
        return ModelWeights(weights)

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        layers = weights.trainable
        values = tf.gather(layers["embedding"], tf.transpose(features))
        for name in names:
            values = lstm_over_time(values, layers[name])
        flat = tf.reshape(values, [-1, values.shape[-1]])
        logits = flat @ layers["kernel"] + layers["bias"]
        by_time = tf.reshape(logits, [*_first_two(values), vocabulary])
        outputs = tf.transpose(by_time, [1, 0, 2])
        return ForwardPass(outputs, weights.state, 0.0)

    return Model(
        init=init,
        forward=forward,
        loss=masked_token_cross_entropy,
        metrics={"accuracy": masked_token_accuracy},
        name="character_lstm",
    )


def lstm_weights(features: int, units: int, seed: seeds.Seed) -> dict[str, Any]:
    """Initial weights of ``lstm``, distributed as Keras's."""
    kernel_seed, recurrent_seed = tf.unstack(seeds.split(seed, 2))
    square = seeds.normal([4 * units, units], recurrent_seed, stddev=1.0)
    basis, triangle = tf.linalg.qr(square)
    zeros, ones = tf.zeros([units]), tf.ones([units])
    return {
        "kernel": _reordered(_glorot(features, 4 * units, kernel_seed)),
        "recurrent": _reordered(
            tf.transpose(basis * tf.sign(tf.linalg.diag_part(triangle)))
        ),
        "bias": tf.concat([zeros, ones, zeros, zeros], axis=0),
    }


def _reordered(drawn: Any) -> Any:
    # Drawn in the order input, forget, output, candidate.
    let_in, forget, let_out, candidate = tf.split(drawn, 4, axis=-1)
    return tf.concat([let_in, forget, candidate, let_out], axis=-1)


def _glorot(fan_in: int, fan_out: int, seed: seeds.Seed) -> Any:
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return (2.0 * seeds.uniform([fan_in, fan_out], seed) - 1.0) * limit


def _first_two(values: Any) -> list[Any]:
    dynamic = tf.shape(values)
    return [dynamic[i] if n is None else n for i, n in enumerate(values.shape[:2])]
