"""TensorFlow Federated: its weighted FedAvg on its default executor."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import platform
import signal
from collections import OrderedDict
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from simulations.speed.process import family
from simulations.speed.session import Session, arguments
from simulations.speed.workload import Array, Workload


def main() -> None:
    """Serves rounds until standard input ends."""
    session = Session()
    workload, options = arguments()
    system = _Federation(workload)
    session.ready(versions=_versions(), settings=options)
    try:
        session.run(system.one_round, system.weights)
    finally:
        # TFF's executor outlives this process, also where nobody else ends it.
        for child in family(os.getpid())[1:]:
            os.kill(child, signal.SIGKILL)


class _Federation:
    """``tff.learning.algorithms.build_weighted_fed_avg`` and its clients."""

    def __init__(self, workload: Workload) -> None:
        self._clients = [
            _batches(workload, i).cache() for i in range(workload.num_clients)
        ]
        rows = self._clients[0].element_spec

        def model() -> Any:
            # Keras 2 draws first weights; the workload's are put in their place below.
            return tff.learning.models.from_keras_model(
                _keras_model(workload), loss=_loss(workload), input_spec=rows
            )

        rate = workload.learning_rate
        self._process = tff.learning.algorithms.build_weighted_fed_avg(
            model_fn=model,
            client_optimizer_fn=tff.learning.optimizers.build_sgdm(rate),
            server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
            loop_implementation=tff.learning.LoopImplementation.DATASET_REDUCE,
        )
        first = tff.learning.models.ModelWeights(list(workload.weights), [])
        state = self._process.initialize()
        self._state = self._process.set_model_weights(state, first)

    def one_round(self) -> None:
        """One round, waited for."""
        self._state = self._process.next(self._state, self._clients).state

    def weights(self) -> list[Array]:
        """The global weights."""
        weights = self._process.get_model_weights(self._state)
        return [np.asarray(leaf) for leaf in weights.trainable]


def _batches(workload: Workload, position: int) -> tf.data.Dataset:
    features, labels = workload.client(position)
    rows = tf.data.Dataset.from_tensor_slices(OrderedDict(x=features, y=labels))
    return rows.batch(workload.batch_size)


def _keras_model(workload: Workload) -> Any:
    shape = workload.features.shape[1:]
    dtype = workload.features.dtype
    layers = tf.keras.layers
    stack = [layers.InputLayer(shape, dtype=dtype)]
    kernels = workload.weights[::2]
    if workload.kind == "characters":
        units = workload.weights[2].shape[0]
        stack += [
            layers.Embedding(*workload.weights[0].shape),
            layers.LSTM(units, return_sequences=True),
            layers.LSTM(units, return_sequences=True),
            layers.Dense(workload.weights[-1].shape[0]),
        ]
        return tf.keras.Sequential(stack)
    for i, kernel in enumerate(kernels):
        if kernel.ndim == 4:
            sides, filters, padding = (
                kernel.shape[:2],
                kernel.shape[3],
                workload.padding,
            )
            stack.append(
                layers.Conv2D(
                    filters, sides, padding=padding.lower(), activation="relu"
                )
            )
            stack.append(layers.MaxPooling2D())
            continue
        if i > 0 and kernels[i - 1].ndim == 4:
            stack.append(layers.Flatten())
        activation = "relu" if i < len(kernels) - 1 else None
        stack.append(layers.Dense(kernel.shape[1], activation=activation))
    return tf.keras.Sequential(stack)


def _loss(workload: Workload) -> Any:
    if workload.kind != "characters":
        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return _OverRealCharacters()


class _OverRealCharacters(tf.keras.losses.Loss):
    """Mean cross-entropy over labels that are not padding."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """A scalar."""
        labels = tf.cast(y_true, tf.int32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, y_pred)
        # In TFF's graphs "labels != 0" compares objects, and is True.
        real = tf.cast(tf.not_equal(labels, 0), losses.dtype)
        return tf.reduce_sum(losses * real) / tf.maximum(tf.reduce_sum(real), 1.0)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tff": tff.__version__,
    }


if __name__ == "__main__":
    main()
