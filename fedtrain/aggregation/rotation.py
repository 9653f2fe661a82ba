"""A random rotation of the update: no number in it stays much larger than the others.

An update whose weight lies in few numbers becomes one whose numbers are all of about
the same size, which a coarse grid describes well. The rotation is public: it hides
nothing, keeps every length, and the server turns the sum back once for all clients.

Source: Suresh et al. (2017), Distributed mean estimation with limited communication,
https://arxiv.org/abs/1611.00429, section 3; Ailon and Chazelle (2009) (signs, then a
Walsh-Hadamard transform).
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError


def random_rotation(seed: seeds.Seed) -> Aggregator:
    """Rotates the whole update as one vector; the server rotates the sum back.

    Leaves keep their shapes, though not their meaning. One rotation serves the whole
    run, so that a late contribution is turned back as an early one.

    Args:
      seed: int32 [2], public: every client receives it with the broadcast.

    Guarantees:
      The L2 norm over all leaves stays as it was, up to float rounding.
    """

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        update = _as_one_vector(rotated, contribution.update, shared)
        return contribution._replace(update=update), client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        update = _as_one_vector(unrotated, total.update, state)
        return total._replace(update=update), state

    def init(weights: Any) -> tf.Tensor:
        check_one_type(weights)
        return tf.constant(seed, tf.int32)

    return Aggregator(
        init=init,
        share=lambda state: state,
        init_client=nothing,
        encode=encode,
        decode=decode,
    )


def rotated(vector: Any, seed: seeds.Seed) -> tf.Tensor:
    """``vector`` rotated by the random rotation of ``seed``; of any length.

    A length that is no power of two is not padded, which could double it: the largest
    power of two of numbers at its start is rotated, then as many at its end.

    Args:
      vector: Float array or tensor [n].
      seed: int32 [2].
    """
    vector = tf.convert_to_tensor(vector)
    size, length = _power_of_two(vector), vector.shape[0]
    first = walsh_hadamard(vector[:size] * _signs(vector, seed, 0))
    if size == length:
        return first
    both = tf.concat([first, vector[size:]], axis=0)
    last = walsh_hadamard(both[length - size :] * _signs(vector, seed, 1))
    return tf.concat([both[: length - size], last], axis=0)


def unrotated(vector: Any, seed: seeds.Seed) -> tf.Tensor:
    """The inverse of ``rotated`` with the same ``seed``, up to float rounding."""
    vector = tf.convert_to_tensor(vector)
    size, length = _power_of_two(vector), vector.shape[0]
    if size < length:
        last = walsh_hadamard(vector[length - size :]) * _signs(vector, seed, 1)
        vector = tf.concat([vector[: length - size], last], axis=0)
    first = walsh_hadamard(vector[:size]) * _signs(vector, seed, 0)
    return tf.concat([first, vector[size:]], axis=0)


def walsh_hadamard(vector: Any) -> tf.Tensor:
    """The orthonormal Walsh-Hadamard transform, which is its own inverse.

    Sums and differences in a fixed order, so that eager, compiled and XLA results are
    equal to the bit; in time n log n.

    Args:
      vector: Float array or tensor [n], n a power of two, or 0.
    """
    vector = tf.convert_to_tensor(vector)
    length = vector.shape[0]
    if length & (length - 1):
        raise ConfigError(
            f"walsh_hadamard takes vectors whose length is a power of two, got "
            f"{length}. rotated(...) takes any length."
        )
    width = 1
    while width < length:
        left, right = tf.unstack(tf.reshape(vector, [-1, 2, width]), axis=1)
        vector = tf.stack([left + right, left - right], axis=1)
        width *= 2
    scale = tf.constant(1.0 / math.sqrt(max(length, 1)), vector.dtype)
    return tf.reshape(vector, [length]) * scale


def check_one_type(weights: Any) -> None:
    """Raises ConfigError unless all leaves of ``weights`` are of one float type."""
    types = {tf.as_dtype(leaf.dtype).name for leaf in tf.nest.flatten(weights)}
    if not types <= {"float32"} and not types <= {"float64"}:
        raise ConfigError(
            "Compression takes all weights as one vector, so they must be of one float "
            f"type, float32 or float64; the model has {', '.join(sorted(types))}. "
            "Leave it out, or give the model weights of one type."
        )


def _as_one_vector(
    rotation: Callable[[Any, seeds.Seed], tf.Tensor], update: Any, seed: seeds.Seed
) -> Any:
    leaves = tf.nest.flatten(update)
    if not leaves:
        return update
    flat = tf.concat([tf.reshape(leaf, [-1]) for leaf in leaves], axis=0)
    parts = tf.split(rotation(flat, seed), [math.prod(leaf.shape) for leaf in leaves])
    shaped = [
        tf.reshape(part, leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
    ]
    return tf.nest.pack_sequence_as(update, shaped)


def _power_of_two(vector: tf.Tensor) -> int:
    """The largest power of two that is at most the vector's length."""
    length = int(vector.shape[0])
    return 1 << (length.bit_length() - 1) if length else 0


def _signs(vector: tf.Tensor, seed: seeds.Seed, place: int) -> tf.Tensor:
    size = _power_of_two(vector)
    return seeds.signs(size, seeds.fold(seed, place), vector.dtype)
