"""A run's weights in a Keras model, for everything that Keras models are used for."""

from pathlib import Path
from typing import Any

import keras

from fedtrain.core.errors import ConfigError
from fedtrain.models.keras import assign, keras_model
from fedtrain.models.model import Model
from fedtrain.project.build_model import user_model
from fedtrain.project.config import ProjectConfig
from fedtrain.project.weights_file import Arrays, weights_like


def keras_model_with(config: ProjectConfig, folder: Path, arrays: Arrays) -> Any:
    """The Keras model of ``[model]`` with the weights ``arrays``."""
    if config.model.path is None:
        return _dense(arrays, hidden=len(config.model.hidden))
    model = user_model(config, folder)
    if isinstance(model, Model):
        raise ConfigError(
            f"{config.model.path} gives a fedtrain Model, which is no Keras model."
        )
    if getattr(model, "loss", None) is None:
        model.compile(loss="mse")  # the adapter wants a loss; weights do not need one
    like = keras_model(model).init(None)
    assign(weights_like(arrays, like), model)
    return model


def _dense(arrays: Arrays, *, hidden: int) -> Any:
    """The ready-made ``dense_classifier`` as a Keras model; it gives logits."""
    layers = [
        (arrays[f"trainable/{i}/kernel"], arrays[f"trainable/{i}/bias"])
        for i in range(hidden + 1)
    ]
    activations = ["relu"] * hidden + [None]
    network = keras.Sequential([keras.layers.Input([len(layers[0][0])])])
    for (kernel, bias), activation in zip(layers, activations, strict=True):
        dense = keras.layers.Dense(len(bias), activation=activation)
        network.add(dense)
        dense.set_weights([kernel, bias])
    return network
