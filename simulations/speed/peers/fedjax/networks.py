"""The workloads' models in JAX, on a flat list of weights in TensorFlow's layout."""

from typing import Any

import jax
import jax.numpy as jnp

from simulations.speed.workload import Workload


def logits(
    workload: Workload, weights: list[Any], features: Any, *, unroll: int
) -> Any:
    """Outputs [batch, classes], or [batch, time, characters].

    ``unroll`` time steps of an LSTM are written out in each turn of its loop.
    """
    if workload.kind == "characters":
        return _characters(weights, features, unroll)
    return _feedforward(weights, features, workload.padding)


def _feedforward(weights: list[Any], values: Any, padding: str) -> Any:
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for kernel, bias in pairs:
        if kernel.ndim == 4:
            values = jax.nn.relu(_convolved(values, kernel, padding) + bias)
            values = _halved(values)
            continue
        values = values.reshape([-1, kernel.shape[0]]) @ kernel + bias
        if kernel is not pairs[-1][0]:
            values = jax.nn.relu(values)
    return values


def _convolved(values: Any, kernel: Any, padding: str) -> Any:
    return jax.lax.conv_general_dilated(
        values, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _halved(values: Any) -> Any:
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, window, "VALID")


def _characters(weights: list[Any], features: Any, unroll: int) -> Any:
    values = weights[0][features]
    values = _lstm(values, *weights[1:4], unroll)
    values = _lstm(values, *weights[4:7], unroll)
    return values @ weights[7] + weights[8]


def _lstm(values: Any, kernel: Any, recurrent: Any, bias: Any, unroll: int) -> Any:
    """Hidden states [batch, time, units]; inputs are projected all at once."""
    projected = jnp.swapaxes(values @ kernel + bias, 0, 1)
    zeros = jnp.zeros([values.shape[0], recurrent.shape[0]])

    def step(carry: Any, inputs: Any) -> Any:
        hidden, cell = carry
        let_in, forget, candidate, let_out = jnp.split(
            inputs + hidden @ recurrent, 4, axis=-1
        )
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(let_in) * jnp.tanh(
            candidate
        )
        hidden = jax.nn.sigmoid(let_out) * jnp.tanh(cell)
        return (hidden, cell), hidden

    _, hidden = jax.lax.scan(step, (zeros, zeros), projected, unroll=unroll)
    return jnp.swapaxes(hidden, 0, 1)
