"""An optimizer as two pure functions, the same type on client and server."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

Schedule = Callable[[Any], Any]


class Optimizer(NamedTuple):
    """Turns gradients into new weights.

    Attributes:
      init: ``init(weights)`` -> slots; always a nest whose first leaf counts the steps.
      update: ``update(weights, slots, gradients)`` -> weights, slots.
      name: For reports.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]
    name: str = "optimizer"


def learning_rate_at(learning_rate: float | Schedule, step: Any) -> Any:
    """The learning rate at ``step`` (int32 scalar), float32 scalar."""
    value = learning_rate(step) if callable(learning_rate) else learning_rate
    return tf.cast(value, tf.float32)


def first_step() -> tf.Tensor:
    """The step counter at the start."""
    return tf.constant(0, tf.int32)


def map_leaves(function: Callable[..., Any], *nests: Any) -> Any:
    """Applies ``function`` to corresponding leaves; returns one nest of its results."""
    return tf.nest.map_structure(function, *nests)
