"""The workloads' models as pure functions of a flat list of weights."""

from typing import Any

import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.models.losses import masked_token_cross_entropy, sparse_cross_entropy
from fedtrain.models.model import ForwardPass, Model, ModelWeights
from simulations.shakespeare.lstm import lstm
from simulations.speed.workload import Array, Workload


def logits(workload: Workload, weights: list[Any], features: Any) -> Any:
    """Outputs of one model: [batch, classes], or [batch, time, characters]."""
    if workload.kind == "characters":
        return _characters(weights, features)
    return _feedforward(weights, features, workload.padding)


def model_of(workload: Workload) -> Model:
    """The model for fedtrain; its metrics are left out, as the peers' are."""

    def init(seed: seeds.Seed) -> ModelWeights:
        del seed
        return ModelWeights([tf.constant(array) for array in workload.weights])

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: seeds.Seed
    ) -> ForwardPass:
        del training, seed
        outputs = logits(workload, weights.trainable, features)
        return ForwardPass(outputs, weights.state, 0.0)

    characters = workload.kind == "characters"
    loss = masked_token_cross_entropy if characters else sparse_cross_entropy
    return Model(init=init, forward=forward, loss=loss, metrics={}, name=workload.name)


def by_gate(weights: list[Any]) -> list[dict[str, Any]]:
    """The two LSTMs' weights by name, gates in the order of ``lstm``."""
    layers = (weights[1:4], weights[4:7])
    names = ("kernel", "recurrent", "bias")
    return [
        {name: _reordered(leaf) for name, leaf in zip(names, layer, strict=True)}
        for layer in layers
    ]


def _feedforward(weights: list[Any], values: Any, padding: str) -> Any:
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


def _characters(weights: list[Any], features: Any) -> Any:
    values = tf.gather(weights[0], features)
    for layer in by_gate(weights):
        values = lstm(values, layer)
    return values @ weights[7] + weights[8]


def _reordered(leaf: Any) -> Any:
    """Input, forget, candidate, output -> input, forget, output, candidate."""
    first, second, third, fourth = tf.split(leaf, 4, axis=-1)
    return tf.concat([first, second, fourth, third], axis=-1)


def averaged(workload: Workload, trained: list[list[Array]]) -> list[Array]:
    """FedAvg's mean by rows of every client's weights after its steps."""
    shares = workload.num_rows() / workload.num_rows().sum()
    return [
        sum(share * leaf for share, leaf in zip(shares, leaves, strict=True))
        for leaves in zip(*trained, strict=True)
    ]
