"""What is known of a tensor: where the rows of the batch are in it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import tensorflow as tf


class Fact(NamedTuple):
    """What is known of a tensor; None instead where nothing is.

    Attributes:
      kind: ``"constant"``: independent of the batch. ``"size"``: integers that may
        depend on the number of rows, and may only be used as a shape. ``"places"``:
        its size may depend on the number of rows, its values do not. ``"rows"``: each
        place of ``axis`` belongs to one row.
      axis: The axis of the rows.
      width: Neighbouring places of ``axis`` that each row has.
    """

    kind: str
    axis: int = 0
    width: int = 1


CONSTANT, SIZE, PLACES = Fact("constant"), Fact("size"), Fact("places")


def kinds(given: Iterable[Fact]) -> set[str]:
    """The kinds of these facts."""
    return {fact.kind for fact in given}


def without_rows(given: list[Fact]) -> Any:
    """The fact of what is computed from values of no row."""
    if "size" in kinds(given):
        return None
    return PLACES if "places" in kinds(given) else CONSTANT


def meeting(facts: list[Fact]) -> Any:
    """The fact of what is computed place by place from values with these facts."""
    rows = {fact for fact in facts if fact.kind == "rows"}
    if not rows:
        return without_rows(facts)
    return rows.pop() if len(rows) == 1 and "size" not in kinds(facts) else None


def aligned(fact: Fact, tensor: Any, rank: int) -> Fact:
    """``fact`` after ``tensor`` is broadcast to ``rank`` axes."""
    if fact.kind != "rows":
        return fact
    return fact._replace(axis=fact.axis + rank - tensor.shape.rank)


def static(tensor: Any) -> Any:
    """The numbers in a tensor that is known while tracing; None if it is not."""
    value = tf.get_static_value(tensor)
    return None if value is None else value.reshape([-1]).tolist()


def known(shape: Any, axes: Iterable[int]) -> bool:
    """Whether sums over these axes cannot depend on the number of rows."""
    return all(shape[axis] is not None for axis in axes)


def product(dimensions: Any) -> int | None:
    """The product of known sizes; None if one is open."""
    result = 1
    for dimension in dimensions:
        if dimension is None:
            return None
        result *= dimension
    return result


def attribute(operation: Any, name: str) -> Any:
    """An attribute of the operation; None if it has none of this name."""
    try:
        return operation.get_attr(name)
    except ValueError:
        return None
