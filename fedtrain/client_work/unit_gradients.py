"""Gradients of units (rows, or several rows together), in the form that costs least.

Each form knows the norm of every unit's gradient, and the sum of the gradients scaled
unit by unit. Only ``Whole`` holds the gradients themselves.

Source: Goodfellow (2015), https://arxiv.org/abs/1510.01799; Li et al. (2022),
https://arxiv.org/abs/2110.05679 (sequences); Bu et al. (2022),
https://arxiv.org/abs/2205.10683 (the choice between two forms, layer by layer).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Whole(NamedTuple):
    """The gradients themselves.

    Attributes:
      values: Tensor [units, size].
      restore: From the sum [size] to the weight's own shape; None to reshape it.
      shape: The weight's.
    """

    values: Any
    shape: Any
    restore: Callable[[Any], Any] | None = None

    def squared_norms(self) -> Any:
        """[units]."""
        return tf.reduce_sum(tf.square(self.values), 1)

    def scaled_sum(self, factors: Any, kept: Any) -> Any:
        """The sum of ``factors`` [units, 1] times the gradients, in one's shape."""
        del kept
        total = tf.reduce_sum(tf.math.multiply_no_nan(self.values, factors), 0)
        return self.restore(total) if self.restore else tf.reshape(total, self.shape)


class Outer(NamedTuple):
    """Gradients that are sums over a unit's positions of outer products.

    Attributes:
      left: Tensor [units, n], or [units, positions, n].
      right: Tensor [units, m], or [units, positions, m].
      restore: From the sum [n, m] to the weight's own shape; None if that is [n, m].
    """

    left: Any
    right: Any
    restore: Callable[[Any], Any] | None = None

    def squared_norms(self) -> Any:
        """[units]; never less than the true value but for the rounding of a sum.

        Over several positions it is a difference of large numbers, worked out in
        float64. What ``scaled_sum`` rounds there is added, as it too must be bounded.
        """
        bound = _squares_from_above(self.left) * _squares_from_above(self.right)
        if self.left.shape.rank == 2:
            return bound
        wide = [tf.cast(x, tf.float64) for x in (self.left, self.right)]
        grams = (tf.matmul(x, x, transpose_b=True) for x in wide)
        products = tf.reduce_sum(functools.reduce(tf.multiply, grams), [1, 2])
        products = tf.cast(tf.maximum(products, 0.0), bound.dtype)
        return products + self._rounding() * bound

    def _rounding(self) -> float:
        num_terms = 2 * self.left.shape[1] + self.left.shape[2] + self.right.shape[2]
        products = 2.0 * num_terms * np.finfo(np.float64).eps
        return float(max(products, _rounding(self.left)))

    def scaled_sum(self, factors: Any, kept: Any) -> Any:
        """The sum of ``factors`` [units, 1] times the gradients, in one's shape."""
        if self.left.shape.rank == 3:
            factors, kept = factors[:, tf.newaxis], kept[:, tf.newaxis]
        left = tf.math.multiply_no_nan(self.left, kept)
        right = tf.math.multiply_no_nan(self.right, factors)
        left, right = (tf.reshape(x, [-1, x.shape[-1]]) for x in (left, right))
        total = tf.matmul(left, right, transpose_a=True)
        return self.restore(total) if self.restore else total

    def whole(self) -> Whole:
        """The gradients themselves."""
        left, right = (_with_positions(x) for x in (self.left, self.right))
        values = tf.matmul(left, right, transpose_a=True)
        return Whole(_flat(values), values.shape[1:], self.restore)


class Lookup(NamedTuple):
    """Gradients of a table whose rows were looked up.

    Attributes:
      indices: Integers [units, positions].
      values: Tensor [units, positions, size]: the gradient of each looked-up row.
      shape: The table's.
    """

    indices: Any
    values: Any
    shape: Any

    def squared_norms(self) -> Any:
        """[units]; a row that was looked up twice has the sum of both gradients.

        What ``scaled_sum`` rounds where they nearly cancel is added.
        """
        positions = self.indices.shape[1]
        if positions == 1:
            return _squares(self.values)
        same = tf.equal(self.indices[:, :, tf.newaxis], self.indices[:, tf.newaxis])
        first = tf.argmax(tf.cast(same, tf.int8), 2, output_type=tf.int32)
        units = tf.shape(first)[0]
        place = first + positions * tf.range(units)[:, tf.newaxis]
        by_row = tf.math.unsorted_segment_sum(self.values, place, units * positions)
        squares = _squares(tf.reshape(by_row, [units, positions * by_row.shape[-1]]))
        rounding = positions * _rounding(self.values)
        return squares + rounding * _squares(self.values)

    def scaled_sum(self, factors: Any, kept: Any) -> Any:
        """The sum of ``factors`` [units, 1] times the gradients, in one's shape."""
        del kept
        scaled = tf.math.multiply_no_nan(self.values, factors[:, tf.newaxis])
        total = tf.math.unsorted_segment_sum(scaled, self.indices, self.shape[0])
        return tf.reshape(total, self.shape)


UnitGradients = Whole | Outer | Lookup


class Windows(NamedTuple):
    """How a convolution moves over an image: pairs for height and width."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    shape: Any


def by_unit(tensor: Any, width: int, inner: Sequence[int]) -> Any:
    """[units * width, ..., *inner] as [units, width, *inner]; no axis for 1."""
    return tf.reshape(tensor, [-1, *([width] if width > 1 else []), *inner])


def outer(left: Any, right: Any, restore: Any = None) -> UnitGradients:
    """Sums of outer products, multiplied out where that is smaller.

    Over T positions the products of all pairs take 2 T^2 numbers, the gradient of an
    [n, m] weight takes n m (Bu et al., 2022).
    """
    product = Outer(left, right, restore)
    if left.shape.rank == 2:
        return product
    positions, size = left.shape[1], left.shape[2] * right.shape[2]
    return product if 2 * positions**2 < size else product.whole()


def together(gradients: Sequence[UnitGradients]) -> UnitGradients | None:
    """The gradients of one weight that is used several times; None where unknown."""
    if len(gradients) == 1:
        return gradients[0]
    if any(isinstance(g, Lookup) or g.restore for g in gradients):
        return None
    if all(isinstance(g, Outer) for g in gradients):
        pairs = [[_with_positions(x) for x in g[:2]] for g in gradients]
        left, right = (tf.concat(parts, 1) for parts in zip(*pairs, strict=True))
        return outer(left, right)
    whole = [g.whole() if isinstance(g, Outer) else g for g in gradients]
    return Whole(tf.add_n([g.values for g in whole]), whole[0].shape)


def windows_of(operation: Any) -> Windows:
    """The windows of a Conv2D or DepthwiseConv2dNative operation (channels last)."""
    images, filters = operation.inputs
    kernel = tuple(filters.shape[:2])
    strides = tuple(operation.get_attr("strides")[1:3])
    dilations = tuple(operation.get_attr("dilations")[1:3])
    mode = operation.get_attr("padding").decode()
    outside: Any = [(0, 0), (0, 0)]
    if mode == "EXPLICIT":
        explicit = operation.get_attr("explicit_paddings")
        outside = [tuple(explicit[2:4]), tuple(explicit[4:6])]
    elif mode == "SAME":
        outside = [
            _same_padding(size, *of)
            for size, *of in zip(
                images.shape[1:3], kernel, strides, dilations, strict=True
            )
        ]
    return Windows(kernel, strides, dilations, tuple(outside), filters.shape)


def convolution(
    images: Any, gradient: Any, windows: Windows, rows_per_unit: int
) -> UnitGradients:
    """Gradients of a convolution's filters [height, width, channels, outputs]."""
    positions = rows_per_unit * gradient.shape[1] * gradient.shape[2]
    size = int(np.prod(windows.shape))
    right = tf.reshape(gradient, [-1, positions, gradient.shape[-1]])
    columns = _columns(images, windows, gradient.shape[2])
    lines = [
        tf.reshape(line, [-1, positions, line.shape[-1]])
        for line in _lines(columns, windows, gradient.shape[1])
    ]
    if 2 * positions**2 < size:
        left = tf.concat(lines, -1)
        return Outer(left, right, lambda total: tf.reshape(total, windows.shape))
    # Line by line, because all windows at once are many times as large as the image.
    values = tf.stack([tf.matmul(x, right, transpose_a=True) for x in lines], 1)
    return Whole(tf.reshape(values, [-1, size]), windows.shape)


def depthwise(
    images: Any, gradient: Any, windows: Windows, rows_per_unit: int
) -> UnitGradients:
    """Gradients of depthwise filters [height, width, channels, multiplier]."""
    positions = rows_per_unit * gradient.shape[1] * gradient.shape[2]
    _, _, channels, multiplier = windows.shape
    right = tf.reshape(gradient, [-1, positions, channels, multiplier])
    columns = _columns(images, windows, gradient.shape[2])
    pieces = []
    for line in _lines(columns, windows, gradient.shape[1]):
        left = tf.reshape(line, [-1, positions, windows.kernel[1], channels, 1])
        pieces += [
            tf.reduce_sum(left[:, :, column] * right, 1)
            for column in range(windows.kernel[1])
        ]
    values = tf.stack(pieces, 1)
    return Whole(tf.reshape(values, [-1, int(np.prod(windows.shape))]), windows.shape)


def _columns(images: Any, windows: Windows, width: int) -> Any:
    """[rows, height, outputs' width, kernel's width * channels]."""
    padded = tf.pad(images, [(0, 0), *windows.padding, (0, 0)])
    stride, dilation = windows.strides[1], windows.dilations[1]
    last = (width - 1) * stride + 1
    shifted = [
        padded[:, :, at * dilation : at * dilation + last : stride]
        for at in range(windows.kernel[1])
    ]
    return tf.concat(shifted, -1)


def _lines(columns: Any, windows: Windows, height: int) -> list[Any]:
    """For each line of the kernel: [rows, outputs' height, outputs' width, ...]."""
    stride, dilation = windows.strides[0], windows.dilations[0]
    last = (height - 1) * stride + 1
    return [
        columns[:, at * dilation : at * dilation + last : stride]
        for at in range(windows.kernel[0])
    ]


def _same_padding(
    size: int, kernel: int, stride: int, dilation: int
) -> tuple[int, int]:
    reach = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
    missing = max(reach - size, 0)
    return missing // 2, missing - missing // 2


def _with_positions(tensor: Any) -> Any:
    return tensor if tensor.shape.rank == 3 else tensor[:, tf.newaxis]


def _squares(tensor: Any) -> Any:
    return tf.reduce_sum(tf.square(tensor), list(range(1, tensor.shape.rank)))


def _squares_from_above(tensor: Any) -> Any:
    """As ``_squares``; what is too small to be squared counts as the smallest number.

    A tiny activation times a huge gradient is not small.
    """
    smallest = float(np.finfo(tensor.dtype.as_numpy_dtype).tiny)
    return _squares(tensor) + smallest * float(np.prod(tensor.shape[1:]))


def _rounding(tensor: Any) -> float:
    return 2.0 * float(np.finfo(tensor.dtype.as_numpy_dtype).eps)


def _flat(tensor: Any) -> Any:
    return tf.reshape(tensor, [-1, int(np.prod(tensor.shape[1:]))])
