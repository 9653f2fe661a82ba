"""The NumPyClient of Flower's actors; each actor builds its Keras model once."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from functools import cache
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from flwr.app import Context
from flwr.client import Client, NumPyClient

from simulations.speed.workload import Array, Workload, load

# One core for each of the two actors.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


class Trainer(NumPyClient):
    """Trains the actor's model on one client's rows."""

    def __init__(self, position: int) -> None:
        self._rows = _workload().client(position)

    def fit(
        self, parameters: list[Array], config: dict[str, Any]
    ) -> tuple[list[Array], int, dict[str, Any]]:
        """One epoch in the rows' order."""
        del config
        model = _model()
        model.set_weights(parameters)
        features, labels = self._rows
        model.fit(
            features,
            labels,
            batch_size=_workload().batch_size,
            epochs=1,
            shuffle=False,
            verbose=0,
        )
        return model.get_weights(), len(labels), {}


def client_of(context: Context) -> Client:
    """The client of a virtual node."""
    return Trainer(int(context.node_config["partition-id"])).to_client()


@cache
def _workload() -> Workload:
    return load(Path(os.environ["FEDTRAIN_SPEED_WORKLOAD"]))


@cache
def _model() -> Any:
    workload = _workload()
    model = keras.Sequential(
        [keras.Input(workload.features.shape[1:]), *_layers(workload)]
    )
    characters = workload.kind == "characters"
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer=keras.optimizers.SGD(workload.learning_rate),
        loss=_over_real_characters if characters else cross_entropy,
        jit_compile=False,
    )
    return model


def _layers(workload: Workload) -> list[Any]:
    weights = workload.weights
    if workload.kind == "characters":
        units = weights[2].shape[0]
        return [
            keras.layers.Embedding(*weights[0].shape),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Dense(weights[-1].shape[0]),
        ]
    layers: list[Any] = []
    kernels = weights[::2]
    for i, kernel in enumerate(kernels):
        if kernel.ndim == 4:
            sides, filters = kernel.shape[:2], kernel.shape[3]
            layers += [
                keras.layers.Conv2D(
                    filters, sides, activation="relu", padding=workload.padding.lower()
                ),
                keras.layers.MaxPooling2D(),
            ]
            continue
        if i > 0 and kernels[i - 1].ndim == 4:
            layers.append(keras.layers.Flatten())
        is_last = i == len(kernels) - 1
        layers.append(
            keras.layers.Dense(kernel.shape[1], activation=None if is_last else "relu")
        )
    return layers


def _over_real_characters(labels: Any, outputs: Any) -> Any:
    """Mean cross-entropy over labels that are not padding."""
    labels = tf.cast(labels, tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)
    real = tf.cast(labels != 0, losses.dtype)
    return tf.reduce_sum(losses * real) / tf.maximum(tf.reduce_sum(real), 1.0)
