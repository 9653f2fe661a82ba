"""Learning rates as functions of the step: local on a client, rounds on a server."""

import math
from typing import Any

import tensorflow as tf

from fedtrain.core import validate
from fedtrain.optimizers.optimizer import Schedule


def constant(value: float) -> Schedule:
    """Always ``value``."""
    validate.positive(value=value)
    return lambda step: tf.constant(value, tf.float32)


def exponential_decay(initial: float, *, decay: float, every: int = 1) -> Schedule:
    """``initial * decay ** (step / every)``."""
    validate.positive(initial=initial, every=every)
    validate.fraction(decay=decay)
    return lambda step: initial * decay ** (tf.cast(step, tf.float32) / every)


def cosine_decay(initial: float, *, num_steps: int, final: float = 0.0) -> Schedule:
    """Half a cosine from ``initial`` down to ``final`` over ``num_steps``."""
    validate.positive(initial=initial, num_steps=num_steps)

    def schedule(step: Any) -> Any:
        done = tf.minimum(tf.cast(step, tf.float32) / num_steps, 1.0)
        return final + (initial - final) * 0.5 * (1.0 + tf.cos(math.pi * done))

    return schedule


def linear_warmup(schedule: Schedule, *, num_steps: int) -> Schedule:
    """Scales ``schedule`` up from 0 over the first ``num_steps``."""
    validate.positive(num_steps=num_steps)
    return lambda step: (
        schedule(step) * tf.minimum((tf.cast(step, tf.float32) + 1.0) / num_steps, 1.0)
    )
