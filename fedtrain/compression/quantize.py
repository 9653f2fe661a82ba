"""Rounded weights: each kernel takes few evenly spaced values, as integers would.

The server keeps weights of full precision; the model computes with rounded ones, and
the gradient passes the rounding as if it were not there.

Source: Jacob et al. (2018), https://arxiv.org/abs/1712.05877; Bengio, Léonard and
Courville (2013), https://arxiv.org/abs/1308.3432 (straight-through gradients).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from fedtrain.compression.constraint import Constraint, kernel_leaves, map_kernels
from fedtrain.core import validate
from fedtrain.core.errors import ConfigError


def quantized(
    *,
    num_bits: int = 8,
    per_channel: bool = True,
    kernels: Sequence[bool] | None = None,
) -> Constraint:
    """Kernels of ``2 ** num_bits - 1`` values, symmetric about zero.

    The grid is that of the broadcast weights, ``scale * code`` with codes from -127 to
    127 for 8 bits, so zeros stay zeros. Training stops where a weight leaves it.

    Args:
      num_bits: 2 to 16; TFLite has 8.
      per_channel: One scale for each output channel (the last axis), as TFLite has for
        convolutions; else one for the kernel.
      kernels: Which leaves are rounded; see ``kernel_leaves``.
    """
    validate.positive_integer(num_bits=num_bits)
    if not 2 <= num_bits <= 16:
        raise ConfigError(f"num_bits must be from 2 to 16, got {num_bits}.")
    largest_code = 2 ** (num_bits - 1) - 1

    def derive(trainable: Any, round_number: Any) -> tuple[Any, ...]:
        del round_number
        leaves = kernel_leaves(trainable, kernels)
        return tuple(
            scale(leaf, largest_code, per_channel=per_channel) for leaf in leaves
        )

    def apply(scales: Any, trainable: Any) -> Any:
        rounding = partial(_rounded, largest_code)
        return map_kernels(rounding, scales, trainable, kernels)

    def keep(scales: Any, trainable: Any) -> Any:
        # Rounded, the server's weights would swallow every update below half a step.
        del scales
        return trainable

    granularity = "channel" if per_channel else "kernel"
    name = f"quantized({num_bits}, {granularity})"
    return Constraint(derive, apply, keep, name, apply)


def scale(kernel: Any, largest_code: int, *, per_channel: bool) -> Any:
    """The step of the grid that reaches the kernel's largest magnitude.

    Args:
      kernel: Tensor; its last axis is the output channel.
      largest_code: 127 for 8 bits.
      per_channel: Whether each channel has its own.

    Returns:
      Positive tensor of the kernel's rank that broadcasts against it; 1 where all
      weights are zero.
    """
    axes = list(range(len(kernel.shape) - int(per_channel)))
    largest = tf.reduce_max(tf.abs(kernel), axes, keepdims=True)
    return tf.where(largest > 0, largest / largest_code, tf.ones_like(largest))


def _rounded(largest_code: int, step: Any, leaf: Any) -> Any:
    @tf.custom_gradient
    def rounded(values: Any) -> tuple[Any, Any]:
        codes = tf.round(values / step)
        inside = tf.abs(codes) <= largest_code
        codes = tf.clip_by_value(codes, -largest_code, largest_code)

        def straight_through(gradient: Any) -> Any:
            return tf.where(inside, gradient, tf.zeros_like(gradient))

        return codes * step, straight_through

    return rounded(leaf)
