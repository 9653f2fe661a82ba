"""Where a model's forward pass uses a weight, and each row's gradient at that place.

The gradient of a row with respect to a weight is a function of what the operation that
uses the weight was given and of the gradient with respect to what it gave. Both are of
the size of the activations; the gradients of all rows would be as many copies of the
weights.

Source: Goodfellow (2015), Efficient per-example gradient computations,
https://arxiv.org/abs/1510.01799; Rochette, Manoel and Tramel (2019),
https://arxiv.org/abs/1912.06015 (convolutions).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.client_work import unit_gradients
from fedtrain.client_work.row_proof.fact import Fact
from fedtrain.client_work.unit_gradients import Lookup, UnitGradients, Whole


class NotSeparableError(Exception):
    """Why the rows' gradients cannot be had from one backward pass."""


class Use(NamedTuple):
    """One operation that uses a weight.

    Attributes:
      view: The weight as it is used: itself, or reshaped, transposed, cast or cut.
      output: The tensor whose gradient is needed.
      gradients: ``gradients(gradient, rows_per_unit)`` -> ``UnitGradients`` of the
        view, from the gradient with respect to ``output``.
    """

    view: Any
    output: Any
    gradients: Callable[[Any, int], UnitGradients]


def weight_uses(
    weight: Any, operations: Iterable[Any], facts: dict[str, Any]
) -> list[Use]:
    """All uses of ``weight`` among ``operations``.

    Args:
      weight: A tensor that the operations begin with.
      operations: Of one graph.
      facts: Those of all tensors that the operations use.

    Returns:
      Uses whose views are the same tensor, or have no value of the weight in common, so
      that the squared norms of their gradients add up.

    Raises:
      NotSeparableError: Some use has no rule, or two uses see the weight differently.
    """
    consumers = defaultdict(list)
    for operation in operations:
        for place, tensor in enumerate(operation.inputs):
            consumers[tensor.name].append((operation, place))
    return _uses_of(weight, consumers, facts)


# The gradient of each is an isometry, so the norm of a view's gradient is the weight's.
_VIEWS = {"Identity", "Reshape", "ExpandDims", "Squeeze", "Transpose", "Cast"}
_VIEWS |= {"Slice", "StridedSlice"}
_PARTS = {"Split": 1, "SplitV": 0, "Unpack": 0}
_NO_USE = {"Shape", "ShapeN", "Rank", "Size", "StopGradient", "ZerosLike", "OnesLike"}


def _uses_of(tensor: Any, consumers: Any, facts: dict[str, Any]) -> list[Use]:
    found = [c for c in consumers[tensor.name] if c[0].type not in _NO_USE]
    views = [operation for operation, place in found if _is_view(operation, place)]
    if not views:
        return [_use(tensor, operation, place, facts) for operation, place in found]
    if len(found) > 1:
        raise NotSeparableError(f"{tensor.name} is used in several ways")
    uses = (_uses_of(output, consumers, facts) for output in views[0].outputs)
    return [use for part in uses for use in part]


def _is_view(operation: Any, place: int) -> bool:
    if operation.type == "Cast" and not _is_wide(operation.outputs[0].dtype):
        return False
    return _PARTS.get(operation.type) == place or (
        operation.type in _VIEWS and place == 0
    )


def _use(view: Any, operation: Any, place: int, facts: dict[str, Any]) -> Use:
    rule = _RULES.get(operation.type)
    given = [facts[tensor.name] for tensor in operation.inputs]
    others = [fact for i, fact in enumerate(given) if i != place]
    if not _is_wide(view.dtype):
        raise NotSeparableError(f"{view.name} is of type {view.dtype.name}")
    found = None
    if rule and view.shape.is_fully_defined() and None not in others:
        found = rule(operation, place, facts)
    if found is None:
        raise NotSeparableError(
            f"{view.name} is used by {operation.name} ({operation.type}), for which "
            "there is no rule"
        )
    return Use(view, operation.outputs[0], found)


def _is_wide(dtype: Any) -> bool:
    """Else a sum of many rows would be rounded to few bits, so by more than one row."""
    return bool(dtype.is_floating and dtype.size >= 4)


def _rows_first(fact: Any) -> bool:
    return isinstance(fact, Fact) and fact.kind == "rows" and fact.axis == 0


def _matmul(operation: Any, place: int, facts: dict[str, Any]) -> Any:
    values, weight = operation.inputs
    names = (
        ("transpose_a", "transpose_b")
        if operation.type == "MatMul"
        else ("adj_x", "adj_y")
    )
    flipped, turned = (operation.get_attr(name) for name in names)
    plain = place == 1 and weight.shape.rank == 2 and not flipped
    if not plain or not _rows_first(facts[values.name]):
        return None
    width = facts[values.name].width * _size(values.shape[1:-1])

    def gradients(gradient: Any, rows_per_unit: int) -> UnitGradients:
        left, right = (
            unit_gradients.by_unit(part, width * rows_per_unit, [part.shape[-1]])
            for part in (values, gradient)
        )
        return unit_gradients.outer(*((right, left) if turned else (left, right)))

    return gradients if values.shape[1:].is_fully_defined() else None


def _einsum(operation: Any, place: int, facts: dict[str, Any]) -> Any:
    inputs, output = operation.get_attr("equation").decode().split("->")
    names = inputs.split(",")
    if len(names) != 2 or "." in inputs:
        return None
    own, other = names[place], names[1 - place]
    values = operation.inputs[1 - place]
    fact = facts[values.name]
    if fact.kind != "rows" or other[fact.axis] not in output:
        return None
    row = other[fact.axis]
    contracted = "".join(name for name in own if name not in output)
    free = "".join(name for name in own if name in output)
    inner = "".join(name for name in other if name in output and name != row)
    alone = set(contracted) <= set(other) and not set(free) & set(other)
    if not alone or row in own or set(other) - set(output) - set(own):
        return None
    sizes = dict(zip(other, values.shape, strict=True))
    sizes |= dict(zip(own, operation.inputs[place].shape, strict=True))
    width = fact.width * _size([sizes[name] for name in inner])
    shapes = [[sizes[name] for name in group] for group in (contracted, free)]

    def gradients(gradient: Any, rows_per_unit: int) -> UnitGradients:
        left = tf.einsum(f"{other}->{row}{inner}{contracted}", values)
        right = tf.einsum(f"{output}->{row}{inner}{free}", gradient)
        width_of_unit = width * rows_per_unit
        left = unit_gradients.by_unit(left, width_of_unit, [_size(shapes[0])])
        right = unit_gradients.by_unit(right, width_of_unit, [_size(shapes[1])])

        def restore(total: Any) -> Any:
            total = tf.reshape(total, [*shapes[0], *shapes[1]])
            return tf.einsum(f"{contracted}{free}->{own}", total)

        return unit_gradients.outer(left, right, restore)

    return gradients if None not in [sizes[name] for name in inner] else None


def _conv(operation: Any, place: int, facts: dict[str, Any]) -> Any:
    images, filters = operation.inputs
    fact = facts[images.name]
    depthwise = operation.type != "Conv2D"
    channels_last = operation.get_attr("data_format") == b"NHWC"
    whole = depthwise or images.shape[-1] == filters.shape[2]
    if place != 1 or not _rows_first(fact) or fact.width != 1:
        return None
    if not (channels_last and whole and images.shape[1:].is_fully_defined()):
        return None
    windows = unit_gradients.windows_of(operation)
    form = unit_gradients.depthwise if depthwise else unit_gradients.convolution

    def gradients(gradient: Any, rows_per_unit: int) -> UnitGradients:
        return form(images, gradient, windows, rows_per_unit)

    return gradients


def _gather(operation: Any, place: int, facts: dict[str, Any]) -> Any:
    table, indices, axis = operation.inputs
    fact = facts[indices.name]
    places = tf.get_static_value(axis)
    first = place == 0 and not operation.get_attr("batch_dims") and places == 0
    if not first or not _rows_first(fact):
        return None
    width = fact.width * _size(indices.shape[1:])

    def gradients(gradient: Any, rows_per_unit: int) -> UnitGradients:
        own = width * rows_per_unit
        size = _size(table.shape[1:])
        flat = tf.reshape(indices, [-1, own])
        return Lookup(flat, tf.reshape(gradient, [-1, own, size]), table.shape)

    return gradients if indices.shape[1:].is_fully_defined() else None


def _scaling(operation: Any, place: int, facts: dict[str, Any]) -> Any:
    other = operation.inputs[1 - place]

    def local(gradient: Any) -> Any:
        return gradient * other

    return _broadcast(operation, place, facts, local)


def _shift(operation: Any, place: int, facts: dict[str, Any]) -> Any:
    if operation.type == "BiasAdd" and (
        place != 1 or operation.get_attr("data_format") != b"NHWC"
    ):
        return None
    negative = operation.type == "Sub" and place == 1
    return _broadcast(operation, place, facts, tf.negative if negative else None)


def _broadcast(operation: Any, place: int, facts: dict[str, Any], local: Any) -> Any:
    output, view = operation.outputs[0], operation.inputs[place]
    fact, rank = facts[output.name], operation.outputs[0].shape.rank
    if not _rows_first(fact) or not output.shape[1:].is_fully_defined():
        return None
    shape = [1] * (rank - view.shape.rank) + list(view.shape)
    if shape[0] != 1:
        return None
    stretched = [
        axis for axis in range(1, rank) if shape[axis] == 1 and output.shape[axis] != 1
    ]

    def gradients(gradient: Any, rows_per_unit: int) -> UnitGradients:
        values = local(gradient) if local else gradient
        width = fact.width * rows_per_unit
        if stretched or width > 1:
            parts = tf.reshape(values, [-1, width, *output.shape[1:]])
            values = tf.reduce_sum(parts, [1, *(axis + 1 for axis in stretched)])
        return Whole(tf.reshape(values, [-1, _size(view.shape)]), view.shape)

    return gradients


def _size(shape: Any) -> int:
    result = 1
    for dimension in shape:
        result *= dimension or 0
    return result


_RULES = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Einsum": _einsum,
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _conv,
    "GatherV2": _gather,
    "Mul": _scaling,
    "Add": _shift,
    "AddV2": _shift,
    "Sub": _shift,
    "BiasAdd": _shift,
}
