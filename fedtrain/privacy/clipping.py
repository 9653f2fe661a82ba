"""Bounds on one unit's effect on a sum.

Source: Abadi et al. (2016), Algorithm 1; McMahan et al. (2018), FlatClip.
"""

from typing import Any

import tensorflow as tf

from fedtrain.core import nests


def clip_to_norm(update: Any, clipping_norm: Any) -> tuple[Any, tf.Tensor]:
    """Scales ``update`` down to at most ``clipping_norm``.

    Args:
      update: Nest of float tensors.
      clipping_norm: Largest allowed L2 norm over all leaves taken as one vector.

    Returns:
      The clipped nest, and the norm before clipping (0 where it was not finite).

    Guarantees:
      The result's norm is at most ``clipping_norm`` up to rounding. Zero stays zero. An
      update that holds a NaN or an infinity becomes zero.
    """
    stacked = tf.nest.map_structure(lambda leaf: leaf[tf.newaxis], update)
    finite, norms = _finite_and_norms(stacked)
    factor = _factors(norms, clipping_norm)[0]
    clipped = nests.where(
        finite[0], nests.scale(update, factor), nests.zeros_like(update)
    )
    return clipped, norms[0]


def sum_of_clipped(gradients: Any, clipping_norm: float) -> Any:
    """The sum of units' gradients, each scaled down to at most ``clipping_norm``.

    Args:
      gradients: Nest of float tensors [units, ...].
      clipping_norm: Largest allowed L2 norm of one unit's gradient over all leaves.

    Guarantees:
      Adding or removing one unit changes the sum by at most ``clipping_norm`` up to
      rounding, also where a unit's gradient is not finite: that counts as zero.
    """
    finite, norms = _finite_and_norms(gradients)
    factors = _factors(norms, clipping_norm)

    def clipped_sum(leaf: tf.Tensor) -> tf.Tensor:
        kept = tf.where(_like(finite, leaf), leaf, tf.zeros_like(leaf))
        return tf.reduce_sum(kept * tf.cast(_like(factors, leaf), leaf.dtype), axis=0)

    return tf.nest.map_structure(clipped_sum, gradients)


def bounded_norm(clipping_norm: Any, initial_clipping_norm: float) -> tf.Tensor:
    """A norm that came by broadcast, as far as a client takes it from the server.

    Outside [2^-40, 2^40] times the first round's, floats would no longer keep the bound
    that the noise relies on: it is cut to that, and to the first round's where it is
    not finite.
    """
    norm = tf.convert_to_tensor(clipping_norm)
    initial = tf.cast(initial_clipping_norm, norm.dtype)
    finite = tf.where(tf.math.is_finite(norm), norm, initial)
    return tf.clip_by_value(finite, initial * 2.0**-40, initial * 2.0**40)


def is_unclipped(gradients: Any, clipping_norm: float) -> Any:
    """Which units' gradients are finite and within the bound: bool [units]."""
    finite, norms = _finite_and_norms(gradients)
    return tf.logical_and(finite, norms <= _bound(clipping_norm, norms.dtype))


def clip_factors(squared_norms: Any, clipping_norm: Any) -> tuple[Any, Any]:
    """What scales each unit's gradient down to at most ``clipping_norm``.

    Args:
      squared_norms: Float tensor [units].
      clipping_norm: Largest allowed L2 norm.

    Returns:
      The factors [units], 0 where the squared norm is not finite, and 1 or 0 for
      whether it is finite.
    """
    bound = _bound(clipping_norm, squared_norms.dtype)
    kept = tf.cast(tf.math.is_finite(squared_norms), squared_norms.dtype)
    factors = bound / tf.sqrt(tf.maximum(squared_norms, tf.square(bound)))
    return tf.math.multiply_no_nan(factors, kept), kept


def sum_by_entity(gradients: Any, rows_per_entity: int) -> Any:
    """Sums each ``rows_per_entity`` neighbouring rows: [rows, ...] -> [entities, ...].

    Places missing at the end count as zero.
    """
    if rows_per_entity == 1:
        return gradients

    def summed(leaf: tf.Tensor) -> tf.Tensor:
        missing = -tf.shape(leaf)[0] % rows_per_entity
        padding = [[0, missing]] + [[0, 0]] * (len(leaf.shape) - 1)
        padded = tf.pad(leaf, padding)
        shape = tf.concat([[-1, rows_per_entity], tf.shape(leaf)[1:]], axis=0)
        return tf.reduce_sum(tf.reshape(padded, shape), axis=1)

    return tf.nest.map_structure(summed, gradients)


def _finite_and_norms(gradients: Any) -> tuple[tf.Tensor, tf.Tensor]:
    leaves = [_flat(leaf) for leaf in tf.nest.flatten(gradients)]
    finite = tf.reduce_all(
        tf.stack([tf.reduce_all(tf.math.is_finite(x), 1) for x in leaves]), 0
    )
    # In float64 the square of any float32 is finite, so a huge row keeps a true norm.
    squares = [tf.reduce_sum(tf.square(tf.cast(x, tf.float64)), 1) for x in leaves]
    norms = tf.sqrt(tf.add_n(squares))
    return finite, tf.where(finite, norms, tf.zeros_like(norms))


def _factors(norms: tf.Tensor, clipping_norm: Any) -> tf.Tensor:
    bound = _bound(clipping_norm, norms.dtype)
    return bound / tf.maximum(norms, bound)


def _bound(clipping_norm: Any, dtype: Any) -> tf.Tensor:
    # Not a cast of a Python number, which would be rounded to float32 first.
    return tf.cast(tf.convert_to_tensor(clipping_norm, dtype_hint=dtype), dtype)


def _flat(leaf: tf.Tensor) -> tf.Tensor:
    size = tf.reduce_prod(tf.shape(leaf)[1:])
    return tf.reshape(leaf, tf.stack([tf.shape(leaf)[0], size]))


def _like(values: tf.Tensor, leaf: tf.Tensor) -> tf.Tensor:
    ones = tf.ones([len(leaf.shape) - 1], tf.int32)
    return tf.reshape(values, tf.concat([tf.shape(values), ones], axis=0))
