"""A small ready-made classifier: dense layers as pure functions."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from fedtrain.core import seeds, validate
from fedtrain.models.losses import accuracy, sparse_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights


def dense_classifier(
    num_features: int,
    num_classes: int,
    *,
    hidden: Sequence[int] = (),
    dtype: Any = None,
    weight_penalty: float = 0.0,
) -> Model:
    """ReLU layers of sizes ``hidden``, then one logit for each class.

    Args:
      num_features: Length of a row, a float vector.
      num_classes: Labels are integers from 0 to ``num_classes - 1``.
      hidden: Sizes of the hidden layers; none makes it multinomial regression.
      dtype: Of weights and features; float32 by default.
      weight_penalty: Adds this times the sum of squared kernels to the loss.
    """
    sizes = [num_features, *hidden, num_classes]
    validate.positive_integer(**{f"layer_{i}": size for i, size in enumerate(sizes)})
    validate.non_negative(weight_penalty=weight_penalty)
    dtype = tf.as_dtype(dtype or tf.float32)

    def init(seed: seeds.Seed) -> ModelWeights:
        layer_seeds = seeds.split(seed, len(sizes) - 1)
        pairs = itertools.pairwise(sizes)
        layers = [
            _layer(fan_in, fan_out, layer_seeds[i], dtype)
            for i, (fan_in, fan_out) in enumerate(pairs)
        ]
        return ModelWeights(trainable=layers)

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        values = tf.cast(features, dtype)
        *inner, last = weights.trainable
        for layer in inner:
            values = tf.nn.relu(values @ layer["kernel"] + layer["bias"])
        outputs = values @ last["kernel"] + last["bias"]
        penalty = tf.zeros([], dtype)
        if weight_penalty:
            kernels = [layer["kernel"] for layer in weights.trainable]
            squares = tf.add_n([tf.reduce_sum(tf.square(k)) for k in kernels])
            penalty = weight_penalty * squares
        return ForwardPass(outputs, weights.state, penalty)

    return Model(
        init=init,
        forward=forward,
        loss=sparse_cross_entropy,
        metrics={"accuracy": accuracy},
        name="dense_classifier",
    )


def _layer(fan_in: int, fan_out: int, seed: seeds.Seed, dtype: Any) -> dict[str, Any]:
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    uniform = seeds.uniform([fan_in, fan_out], seed, dtype)
    return {
        "kernel": (2.0 * uniform - 1.0) * limit,
        "bias": tf.zeros([fan_out], dtype),
    }
