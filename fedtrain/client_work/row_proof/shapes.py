"""Sizes that TensorFlow leaves open while tracing although they follow from others."""

import math
import operator
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Sizes = list[int | None]


def refine_reshape(operation: Any) -> None:
    """Tells a Reshape's output the sizes that its second input is known to hold."""
    output = operation.outputs[0]
    sizes = known_numbers(operation.inputs[1])
    if sizes is not None:
        output.set_shape([None if size == -1 else size for size in sizes])


def refine_elementwise(operation: Any) -> None:
    """Tells the output what its inputs have been found to be since."""
    shape = operation.inputs[0].shape
    for tensor in operation.inputs[1:]:
        shape = tf.broadcast_static_shape(shape, tensor.shape)
    operation.outputs[0].set_shape(shape)


def known_numbers(tensor: Any) -> Sizes | None:
    """The integers that ``tensor`` holds; None for each that is open.

    A scalar counts as one number. None altogether if not even their number is known.
    """
    value = tf.get_static_value(tensor)
    if value is not None:
        return [int(number) for number in value.reshape([-1])]
    rule = _RULES.get(tensor.op.type)
    found = rule(tensor.op) if rule else None
    if found is None and tensor.shape.is_fully_defined():
        return [None] * math.prod(tensor.shape)
    return found


def _shape(operation: Any) -> Sizes | None:
    shape = operation.inputs[0].shape
    return None if shape.rank is None else list(shape)


def _slice(operation: Any) -> Sizes | None:
    values, *limits = (known_numbers(tensor) for tensor in operation.inputs)
    if values is None or any(not limit or None in limit for limit in limits):
        return None
    begin, end, stride = (limit[0] for limit in limits if limit)
    if operation.get_attr("shrink_axis_mask"):
        return [values[begin or 0]]
    begin = None if operation.get_attr("begin_mask") else begin
    end = None if operation.get_attr("end_mask") else end
    return values[begin:end:stride]


def _joined(operation: Any) -> Sizes | None:
    last = -1 if operation.type == "ConcatV2" else None
    parts = [known_numbers(tensor) for tensor in operation.inputs[:last]]
    return None if None in parts else [n for part in parts if part for n in part]


def _gathered(operation: Any) -> Sizes | None:
    values, places, _ = (known_numbers(tensor) for tensor in operation.inputs)
    if values is None or places is None or None in places:
        return None
    return [values[place or 0] for place in places]


def _product(operation: Any) -> Sizes | None:
    values = known_numbers(operation.inputs[0])
    return [None if values is None or None in values else math.prod(values)]  # type: ignore[arg-type] # none is None


def _same(operation: Any) -> Sizes | None:
    return known_numbers(operation.inputs[0])


def _arithmetic(function: Callable[[int, int], int]) -> Callable[[Any], Any]:
    def rule(operation: Any) -> Sizes | None:
        left, right = (known_numbers(tensor) for tensor in operation.inputs)
        if not left or not right or len(left) != len(right):
            return None
        pairs = zip(left, right, strict=True)
        return [None if a is None or b is None else function(a, b) for a, b in pairs]

    return rule


_RULES: dict[str, Callable[[Any], Sizes | None]] = {
    "Shape": _shape,
    "StridedSlice": _slice,
    "Pack": _joined,
    "ConcatV2": _joined,
    "GatherV2": _gathered,
    "Prod": _product,
    "Cast": _same,
    "Identity": _same,
    "Mul": _arithmetic(operator.mul),
    "AddV2": _arithmetic(operator.add),
    "Sub": _arithmetic(operator.sub),
}
