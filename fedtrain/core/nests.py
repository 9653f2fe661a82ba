"""Arithmetic on nests of tensors: weights, updates and contributions.

A nest is any structure that ``tf.nest`` knows (tuples, NamedTuples, lists, dicts) with
tensors or arrays at its leaves.
"""

from typing import Any

import numpy as np
import tensorflow as tf

Nest = Any


def add(left: Nest, right: Nest) -> Nest:
    """Leaf-wise ``left + right``."""
    return tf.nest.map_structure(lambda a, b: a + b, left, right)


def subtract(left: Nest, right: Nest) -> Nest:
    """Leaf-wise ``left - right``."""
    return tf.nest.map_structure(lambda a, b: a - b, left, right)


def scale(nest: Nest, factor: Any) -> Nest:
    """Multiplies every leaf by the scalar ``factor``, in the leaf's own dtype."""
    return tf.nest.map_structure(lambda leaf: leaf * tf.cast(factor, leaf.dtype), nest)


def zeros_like(nest: Nest) -> Nest:
    """A nest of zeros of the same shapes and dtypes."""
    return tf.nest.map_structure(tf.zeros_like, nest)


def global_norm(nest: Nest) -> tf.Tensor:
    """L2 norm over all leaves taken as one vector; 0 for a nest without leaves."""
    leaves = tf.nest.flatten(nest)
    if not leaves:
        return tf.constant(0.0)
    squares = [tf.reduce_sum(tf.square(leaf)) for leaf in leaves]
    return tf.sqrt(tf.add_n(squares))


def all_finite(nest: Nest) -> tf.Tensor:
    """Scalar bool: no leaf holds a NaN or an infinity."""
    floats = [leaf for leaf in tf.nest.flatten(nest) if _is_float(leaf)]
    if not floats:
        return tf.constant(value=True)
    checks = [tf.reduce_all(tf.math.is_finite(leaf)) for leaf in floats]
    return tf.reduce_all(tf.stack(checks))


def where(condition: tf.Tensor, if_true: Nest, if_false: Nest) -> Nest:
    """``if_true`` or ``if_false``, leaf by leaf, by one scalar condition."""
    return tf.nest.map_structure(
        lambda a, b: tf.where(condition, a, b), if_true, if_false
    )


def num_weights(nest: Nest) -> int:
    """Number of scalars in all leaves."""
    return int(
        sum(np.prod(leaf.shape, dtype=np.int64) for leaf in tf.nest.flatten(nest))
    )


def to_numpy(nest: Nest) -> Nest:
    """The same nest with numpy arrays at its leaves."""
    return tf.nest.map_structure(np.asarray, nest)


def to_tensors(nest: Nest) -> Nest:
    """The same nest with tensors at its leaves."""
    return tf.nest.map_structure(tf.convert_to_tensor, nest)


def _is_float(leaf: Any) -> bool:
    return tf.as_dtype(leaf.dtype).is_floating
