"""Adam, Yogi and Adagrad, as adaptive federated optimization uses them.

Source: Reddi et al. (2021), Adaptive federated optimization,
https://arxiv.org/abs/2003.00295, Algorithm 2. ``epsilon`` is that paper's tau. Adam and
Yogi start without bias correction there; ``bias_correction=True`` gives Kingma and Ba's
(2015) Adam.
"""

from collections.abc import Callable
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

SecondMoment = Callable[[Any, Any], Any]


def adam(
    learning_rate: float | Schedule,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    epsilon: float = 1e-3,
    bias_correction: bool = False,
) -> Optimizer:
    """Adam: exponential averages of the gradient and of its square."""
    validate.probability(beta_2=beta_2)

    def second_moment(v: Any, g: Any) -> Any:
        return beta_2 * v + (1.0 - beta_2) * tf.square(g)

    corrections = (beta_1, beta_2) if bias_correction else None
    return _adaptive(
        learning_rate,
        beta_1=beta_1,
        epsilon=epsilon,
        second_moment=second_moment,
        corrections=corrections,
        name="adam",
    )


def yogi(
    learning_rate: float | Schedule,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    epsilon: float = 1e-3,
) -> Optimizer:
    """Yogi: like Adam, but the second moment changes by a bounded step."""
    validate.probability(beta_2=beta_2)

    def second_moment(v: Any, g: Any) -> Any:
        square = tf.square(g)
        return v - (1.0 - beta_2) * square * tf.sign(v - square)

    return _adaptive(
        learning_rate,
        beta_1=beta_1,
        epsilon=epsilon,
        second_moment=second_moment,
        name="yogi",
    )


def adagrad(
    learning_rate: float | Schedule, *, beta_1: float = 0.0, epsilon: float = 1e-3
) -> Optimizer:
    """Adagrad: the sum of squared gradients."""
    return _adaptive(
        learning_rate,
        beta_1=beta_1,
        epsilon=epsilon,
        second_moment=lambda v, g: v + tf.square(g),
        name="adagrad",
    )


def _adaptive(
    learning_rate: float | Schedule,
    *,
    beta_1: float,
    epsilon: float,
    second_moment: SecondMoment,
    corrections: tuple[float, float] | None = None,
    name: str,
) -> Optimizer:
    validate.positive(epsilon=epsilon)
    validate.non_negative(beta_1=beta_1)
    if not callable(learning_rate):
        validate.positive(learning_rate=learning_rate)

    def init(weights: Any) -> Any:
        return first_step(), nests.zeros_like(weights), nests.zeros_like(weights)

    def update(weights: Any, slots: Any, gradients: Any) -> tuple[Any, Any]:
        step, first, second = slots
        first = map_leaves(
            lambda m, g: beta_1 * m + (1.0 - beta_1) * g, first, gradients
        )
        second = map_leaves(second_moment, second, gradients)
        rate = learning_rate_at(learning_rate, step) * _correction(corrections, step)
        new_weights = map_leaves(
            lambda w, m, v: w - tf.cast(rate, w.dtype) * m / (tf.sqrt(v) + epsilon),
            weights,
            first,
            second,
        )
        return new_weights, (step + 1, first, second)

    return Optimizer(init=init, update=update, name=name)


def _correction(betas: tuple[float, float] | None, step: Any) -> Any:
    if betas is None:
        return 1.0
    power = tf.cast(step + 1, tf.float32)
    return tf.sqrt(1.0 - betas[1] ** power) / (1.0 - betas[0] ** power)
