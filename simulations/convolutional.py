"""A small convolutional classifier as pure functions, for the MNIST experiments."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.models.losses import accuracy, sparse_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights

_SIDE, _KERNEL = 28, 5


def convolutional_classifier(
    *,
    filters: Sequence[int],
    hidden: Sequence[int] = (),
    num_classes: int = 10,
    padding: Literal["VALID", "SAME"] = "VALID",
) -> Model:
    """5 x 5 convolutions, each with ReLU and a 2 x 2 maximum, then dense layers.

    Takes images [batch, 28, 28, 1] and gives logits. ``filters=(6, 16)`` with
    ``hidden=(120, 84)`` is LeNet-5 with ReLU and maxima (LeCun et al., 1998);
    ``filters=(32, 64)``, ``hidden=(512,)`` and ``padding="SAME"`` is the network of
    McMahan et al. (2017), 1,663,370 weights.
    """
    lost = _KERNEL - 1 if padding == "VALID" else 0
    sizes = [_pixels(filters, lost) * filters[-1], *hidden, num_classes]
    dense = [list(pair) for pair in itertools.pairwise(sizes)]
    shapes = [*_kernel_shapes(filters), *dense]

    def init(seed: seeds.Seed) -> ModelWeights:
        layer_seeds = seeds.split(seed, len(shapes))
        layers = [_layer(shape, layer_seeds[i]) for i, shape in enumerate(shapes)]
        return ModelWeights(layers)

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        layers = weights.trainable
        values = features
        for layer in layers[: len(filters)]:
            convolved = tf.nn.conv2d(values, layer["kernel"], 1, padding)
            values = tf.nn.max_pool2d(
                tf.nn.relu(convolved + layer["bias"]), 2, 2, "VALID"
            )
        values = tf.reshape(values, [-1, shapes[len(filters)][0]])
        for layer in layers[len(filters) : -1]:
            values = tf.nn.relu(values @ layer["kernel"] + layer["bias"])
        outputs = values @ layers[-1]["kernel"] + layers[-1]["bias"]
        return ForwardPass(outputs, weights.state, 0.0)

    return Model(
        init=init,
        forward=forward,
        loss=sparse_cross_entropy,
        metrics={"accuracy": accuracy},
        name="convolutional_classifier",
    )


def _kernel_shapes(filters: Sequence[int]) -> list[list[int]]:
    depths = zip([1, *filters[:-1]], filters, strict=True)
    return [[_KERNEL, _KERNEL, inside, outside] for inside, outside in depths]


def _pixels(filters: Sequence[int], lost: int) -> int:
    """Of an image after the convolutions, each of which loses ``lost`` a side."""
    side = _SIDE
    for _ in filters:
        side = (side - lost) // 2
    return side * side


def _layer(shape: Sequence[int], seed: seeds.Seed) -> dict[str, Any]:
    """Glorot's uniform kernel and a bias of zeros."""
    field = math.prod(shape[:-2])
    limit = math.sqrt(6.0 / (field * (shape[-2] + shape[-1])))
    kernel = (2.0 * seeds.uniform(shape, seed) - 1.0) * limit
    return {"kernel": kernel, "bias": tf.zeros([shape[-1]])}
