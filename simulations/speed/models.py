"""The workloads' models as pure functions of a flat list of weights."""

from typing import Any

import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.models.losses import sparse_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights
from fedtrain.models.recurrent import character_lstm
from simulations.speed.workload import Array, Workload


def logits(workload: Workload, weights: list[Any], features: Any) -> Any:
    """Outputs of one model: [batch, classes], or [batch, time, characters]."""
    nest = ModelWeights(nested(workload, weights))
    model = model_of(workload)
    return model.forward(nest, features, training=True, seed=None).outputs


def model_of(workload: Workload) -> Model:
    """The model for fedtrain, without metrics: the peers report none either."""
    characters = workload.kind == "characters"
    model = _characters(workload) if characters else _feedforward(workload)

    def init(seed: seeds.Seed) -> ModelWeights:
        del seed
        first = [tf.constant(array) for array in workload.weights]
        return ModelWeights(nested(workload, first))

    return model._replace(init=init, metrics={}, name=workload.name)


def nested(workload: Workload, weights: list[Any]) -> Any:
    """The workload's flat list as the model has it."""
    if workload.kind != "characters":
        return weights
    names = ("kernel", "recurrent", "bias")
    return {
        "embedding": weights[0],
        "lstm_1": dict(zip(names, weights[1:4], strict=True)),
        "lstm_2": dict(zip(names, weights[4:7], strict=True)),
        "kernel": weights[7],
        "bias": weights[8],
    }


def flat(workload: Workload, trainable: Any) -> list[Any]:
    """The model's weights as the workload's flat list."""
    if workload.kind != "characters":
        return list(trainable)
    names = ("kernel", "recurrent", "bias")
    layers = [trainable[f"lstm_{i}"][name] for i in (1, 2) for name in names]
    return [trainable["embedding"], *layers, trainable["kernel"], trainable["bias"]]


def averaged(workload: Workload, trained: list[list[Array]]) -> list[Array]:
    """FedAvg's mean by rows of every client's weights after its steps."""
    shares = workload.num_rows() / workload.num_rows().sum()
    return [
        sum(share * leaf for share, leaf in zip(shares, leaves, strict=True))
        for leaves in zip(*trained, strict=True)
    ]


def _characters(workload: Workload) -> Model:
    vocabulary, embedding = workload.weights[0].shape
    units = [workload.weights[i].shape[0] for i in (2, 5)]
    return character_lstm(vocabulary, embedding=embedding, units=units)


def _feedforward(workload: Workload) -> Model:
    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        outputs = _layers(weights.trainable, features, workload.padding)
        return ForwardPass(outputs, weights.state, 0.0)

    return Model(
        init=lambda seed: ModelWeights([]),
        forward=forward,
        loss=sparse_cross_entropy,
        metrics={},
    )


def _layers(weights: list[Any], values: Any, padding: str) -> Any:
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for kernel, bias in pairs:
        if kernel.shape.rank == 4:
            values = tf.nn.relu(tf.nn.conv2d(values, kernel, 1, padding) + bias)
            values = tf.nn.max_pool2d(values, 2, 2, "VALID")
            continue
        flat = tf.reshape(values, [-1, kernel.shape[0]])
        values = flat @ kernel + bias
        if kernel is not pairs[-1][0]:
            values = tf.nn.relu(values)
    return values
