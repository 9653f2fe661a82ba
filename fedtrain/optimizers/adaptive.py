"""Adam, Yogi and Adagrad, as adaptive federated optimization uses them.

Source: Reddi et al. (2021), Adaptive federated optimization,
https://arxiv.org/abs/2003.00295, Algorithm 2. ``epsilon`` is that paper's tau, and the
second moment starts at its square, the least the paper allows. There is no bias
correction there; ``bias_correction=True, initial_second_moment=0.0`` gives Kingma and
Ba's (2015) Adam, and what Keras and TensorFlow Federated call Adam.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.core import nests, validate
from fedtrain.optimizers.optimizer import (
    Optimizer,
    Schedule,
    first_step,
    learning_rate_at,
    map_leaves,
)


def adam(
    learning_rate: float | Schedule,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    epsilon: float = 1e-3,
    bias_correction: bool = False,
    initial_second_moment: float | None = None,
) -> Optimizer:
    """Adam: exponential averages of the gradient and of its square.

    Args:
      learning_rate: A number, or a function of the step (int32 scalar).
      beta_1: Decay of the gradient's average, in [0, 1).
      beta_2: Decay of the square's average, in (0, 1).
      epsilon: Added to the square root of the second moment.
      bias_correction: Whether averages are divided by ``1 - beta ** steps``.
      initial_second_moment: Where the square's average starts; by default
        ``epsilon ** 2``.
    """
    validate.probability(beta_2=beta_2)

    def second_moment(v: Any, g: Any) -> Any:
        return beta_2 * v + (1.0 - beta_2) * tf.square(g)

    moments = _Moments(beta_1, second_moment, initial_second_moment)
    corrections = (beta_1, beta_2) if bias_correction else None
    return _adaptive("adam", learning_rate, epsilon, moments, corrections)


def yogi(
    learning_rate: float | Schedule,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.99,
    epsilon: float = 1e-3,
    bias_correction: bool = False,
    initial_second_moment: float | None = None,
) -> Optimizer:
    """Yogi: like Adam, but the second moment changes by a bounded step.

    Args:
      learning_rate: A number, or a function of the step (int32 scalar).
      beta_1: Decay of the gradient's average, in [0, 1).
      beta_2: One minus the size of the second moment's step, in (0, 1).
      epsilon: Added to the square root of the second moment.
      bias_correction: As TensorFlow Federated's Yogi has it; the papers have none.
      initial_second_moment: Where the second moment starts; by default
        ``epsilon ** 2``.
    """
    validate.probability(beta_2=beta_2)

    def second_moment(v: Any, g: Any) -> Any:
        square = tf.square(g)
        return v - (1.0 - beta_2) * square * tf.sign(v - square)

    moments = _Moments(beta_1, second_moment, initial_second_moment)
    corrections = (beta_1, beta_2) if bias_correction else None
    return _adaptive("yogi", learning_rate, epsilon, moments, corrections)


def adagrad(
    learning_rate: float | Schedule,
    *,
    beta_1: float = 0.0,
    epsilon: float = 1e-3,
    initial_second_moment: float | None = None,
) -> Optimizer:
    """Adagrad: the sum of squared gradients.

    Args:
      learning_rate: A number, or a function of the step (int32 scalar).
      beta_1: Decay of the gradient's average, in [0, 1); 0 keeps no average.
      epsilon: Added to the square root of the sum. (Keras and TensorFlow Federated add
        it under the root.)
      initial_second_moment: Where the sum starts; by default ``epsilon ** 2``.
    """
    moments = _Moments(beta_1, lambda v, g: v + tf.square(g), initial_second_moment)
    return _adaptive("adagrad", learning_rate, epsilon, moments, None)


class _Moments(NamedTuple):
    """How the two moments move: ``second(v, g)`` is the new second moment."""

    beta_1: float
    second: Callable[[Any, Any], Any]
    initial_second: float | None


def _adaptive(
    name: str,
    learning_rate: float | Schedule,
    epsilon: float,
    moments: _Moments,
    corrections: tuple[float, float] | None,
) -> Optimizer:
    _check(learning_rate, epsilon, moments)
    initial = epsilon**2 if moments.initial_second is None else moments.initial_second

    def init(weights: Any) -> Any:
        second = map_leaves(
            lambda w: tf.fill(w.shape, tf.cast(initial, w.dtype)), weights
        )
        return first_step(), nests.zeros_like(weights), second

    def update(weights: Any, slots: Any, gradients: Any) -> tuple[Any, Any]:
        step, first, second = slots
        first = map_leaves(
            lambda m, g: moments.beta_1 * m + (1.0 - moments.beta_1) * g,
            first,
            gradients,
        )
        second = map_leaves(moments.second, second, gradients)
        rate = tf.cast(learning_rate_at(learning_rate, step), tf.float64)
        rate *= _correction(corrections, step)
        new_weights = map_leaves(
            lambda w, m, v: w - tf.cast(rate, w.dtype) * m / (tf.sqrt(v) + epsilon),
            weights,
            first,
            second,
        )
        return new_weights, (step + 1, first, second)

    return Optimizer(init=init, update=update, name=name)


def _check(learning_rate: float | Schedule, epsilon: float, moments: _Moments) -> None:
    validate.positive(epsilon=epsilon)
    validate.non_negative(initial_second_moment=moments.initial_second or 0.0)
    if moments.beta_1 != 0:
        validate.probability(beta_1=moments.beta_1)
    if not callable(learning_rate):
        validate.positive(learning_rate=learning_rate)


def _correction(betas: tuple[float, float] | None, step: Any) -> Any:
    if betas is None:
        return 1.0
    power = tf.cast(step + 1, tf.float64)
    return tf.sqrt(1.0 - betas[1] ** power) / (1.0 - betas[0] ** power)
