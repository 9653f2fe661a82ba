"""The workloads' models in PyTorch, from and to TensorFlow's layout of weights."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from simulations.speed.workload import Array, Workload


class Feedforward(nn.Module):
    """Convolutions with ReLU and a 2 x 2 maximum, then dense layers."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _convolution(kernel.shape, workload.padding)
            if kernel.ndim == 4
            else nn.Linear(*kernel.shape)
            for kernel in workload.weights[::2]
        )

    def forward(self, values: Any) -> Any:
        """Logits [batch, classes]; images are [batch, depth, height, width]."""
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                values = functional.max_pool2d(functional.relu(layer(values)), 2)
            else:
                values = layer(values.flatten(1))
                if layer is not self.layers[-1]:
                    values = functional.relu(values)
        return values

    def loss(self, features: Any, labels: Any) -> Any:
        """Mean cross-entropy."""
        return functional.cross_entropy(self(features), labels)

    def metrics(self, *batch: Any) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


class Characters(nn.Module):
    """Embedding, two LSTMs, a dense layer."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        table, units = workload.weights[0], workload.weights[2].shape[0]
        self.embedding = nn.Embedding(*table.shape)
        self.lstm = nn.LSTM(table.shape[1], units, num_layers=2, batch_first=True)
        self.dense = nn.Linear(units, len(table))
        # PyTorch adds two biases; training both would double their learning rate.
        for layer in range(2):
            getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False).zero_()

    def forward(self, features: Any) -> Any:
        """Logits [batch, time, characters]."""
        return self.dense(self.lstm(self.embedding(features))[0])

    def loss(self, features: Any, labels: Any) -> Any:
        """Mean cross-entropy over the real characters."""
        outputs = self(features).flatten(0, 1)
        return functional.cross_entropy(outputs, labels.flatten(), ignore_index=0)

    def metrics(self, *batch: Any) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


def network(workload: Workload) -> nn.Module:
    """The workload's model with its first weights."""
    characters = workload.kind == "characters"
    module = Characters(workload) if characters else Feedforward(workload)
    with torch.no_grad():
        pairs = zip(_places(module), workload.weights, strict=True)
        for (parameter, to_torch, _), array in pairs:
            parameter.copy_(torch.from_numpy(to_torch(array)))
    return module


def weights_of(module: nn.Module) -> list[Array]:
    """The model's weights in TensorFlow's layout."""
    return [
        np.ascontiguousarray(from_torch(parameter.detach().numpy()))
        for parameter, _, from_torch in _places(module)
    ]


def _places(module: Any) -> list[tuple[Any, Any, Any]]:
    """Parameters in the order of the workload's weights, with their conversions."""
    if isinstance(module, Characters):
        recurrent = [
            (getattr(module.lstm, f"{name}_l{layer}"), np.transpose, np.transpose)
            for layer, name in itertools.product(
                (0, 1), ("weight_ih", "weight_hh", "bias_ih")
            )
        ]
        dense = [
            (module.dense.weight, np.transpose, np.transpose),
            (module.dense.bias, _same, _same),
        ]
        return [(module.embedding.weight, _same, _same), *recurrent, *dense]
    places = []
    depth = 0
    for layer in module.layers:
        kernel = (layer.weight, *_kernel_conversions(layer, depth))
        places += [kernel, (layer.bias, _same, _same)]
        depth = layer.out_channels if isinstance(layer, nn.Conv2d) else 0
    return places


def _kernel_conversions(layer: Any, depth: int) -> tuple[Any, Any]:
    """``depth``: of the images that a dense layer flattens, 0 after a dense layer."""
    if isinstance(layer, nn.Conv2d):
        return (
            lambda kernel: np.transpose(kernel, (3, 2, 0, 1)),
            lambda kernel: np.transpose(kernel, (2, 3, 1, 0)),
        )
    if depth == 0:
        return np.transpose, np.transpose
    outputs = layer.out_features

    def to_torch(kernel: Array) -> Array:
        by_place = kernel.reshape([-1, depth, outputs])
        return by_place.transpose(2, 1, 0).reshape([outputs, -1])

    def from_torch(kernel: Array) -> Array:
        by_depth = kernel.reshape([outputs, depth, -1])
        return by_depth.transpose(2, 1, 0).reshape([-1, outputs])

    return to_torch, from_torch


def _convolution(shape: tuple[int, ...], padding: str) -> nn.Conv2d:
    side, _, inside, outside = shape
    around = side // 2 if padding == "SAME" else 0
    return nn.Conv2d(inside, outside, side, padding=around)


def _same(array: Array) -> Array:
    return array
