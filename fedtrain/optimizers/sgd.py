"""Stochastic gradient descent, plain or with momentum."""

from typing import Any

import tensorflow as tf

from fedtrain.core import nests, validate
from fedtrain.optimizers.optimizer import (
    Optimizer,
    Schedule,
    first_step,
    learning_rate_at,
    map_leaves,
)


def sgd(
    learning_rate: float | Schedule, *, momentum: float = 0.0, weight_decay: float = 0.0
) -> Optimizer:
    """Gradient descent: ``velocity = momentum * velocity + gradient``.

    Args:
      learning_rate: A number, or a function of the step (int32 scalar).
      momentum: In [0, 1); 0 keeps no velocity.
      weight_decay: Added to the gradient as ``weight_decay * weights``.
    """
    validate.non_negative(weight_decay=weight_decay)
    if momentum != 0:
        validate.probability(momentum=momentum)
    if not callable(learning_rate):
        validate.positive(learning_rate=learning_rate)

    def init(weights: Any) -> Any:
        return first_step(), nests.zeros_like(weights) if momentum else ()

    def update(weights: Any, slots: Any, gradients: Any) -> tuple[Any, Any]:
        step, velocity = slots
        if weight_decay:
            gradients = nests.add(gradients, nests.scale(weights, weight_decay))
        if momentum:
            velocity = nests.add(nests.scale(velocity, momentum), gradients)
        direction = velocity if momentum else gradients
        rate = learning_rate_at(learning_rate, step)
        new_weights = map_leaves(
            lambda w, d: w - tf.cast(rate, w.dtype) * d, weights, direction
        )
        return new_weights, (step + 1, velocity)

    return Optimizer(init=init, update=update, name="sgd")
