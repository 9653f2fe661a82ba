"""Logistic regression on 13 features, as FLamby's baseline for Fed-Heart-Disease."""

import math
from typing import Any

from fedtrain.core import seeds
from fedtrain.models.losses import binary_accuracy, binary_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights


def logistic_regression(num_features: int) -> Model:
    """One logit; weights start uniform within ``1 / sqrt(num_features)``."""
    limit = 1.0 / math.sqrt(num_features)

    def init(seed: seeds.Seed) -> ModelWeights:
        both = (2.0 * seeds.uniform([num_features + 1, 1], seed) - 1.0) * limit
        return ModelWeights({"kernel": both[:-1], "bias": both[-1]})

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        layer = weights.trainable
        outputs = features @ layer["kernel"] + layer["bias"]
        return ForwardPass(outputs, weights.state, 0.0)

    return Model(
        init=init,
        forward=forward,
        loss=binary_cross_entropy,
        metrics={"accuracy": binary_accuracy},
        name="logistic_regression",
    )


def model() -> Model:
    """The model that ``federation.toml`` names."""
    return logistic_regression(13)
