"""A nest of tensors as one vector for each dtype: what an all-reduce takes at once.

A reduction has a price for each call, so the many leaves of a model travel as one.
"""

from typing import Any

import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.core.nests import Nest

# What tf.distribute can add up; other integers travel in a wider type.
_SUMMED = (
    tf.float32,
    tf.float64,
    tf.float16,
    tf.bfloat16,
    tf.int32,
    tf.int64,
)
_WIDER = {
    tf.bool: tf.int32,
    tf.int8: tf.int32,
    tf.uint8: tf.int32,
    tf.int16: tf.int32,
    tf.uint16: tf.int32,
    tf.uint32: tf.int64,
}


def flattened(nest: Nest) -> tuple[tf.Tensor, ...]:
    """All leaves one after another, in one vector for each dtype that occurs."""
    parts: dict[Any, list[tf.Tensor]] = {}
    for leaf in tf.nest.flatten(nest):
        tensor = tf.convert_to_tensor(leaf)
        dtype = summed_dtype(tensor.dtype)
        parts.setdefault(dtype, []).append(tf.reshape(tf.cast(tensor, dtype), [-1]))
    return tuple(tf.concat(parts[dtype], 0) for dtype in _SUMMED if dtype in parts)


def unflattened(vectors: tuple[tf.Tensor, ...], like: Nest) -> Nest:
    """The nest that ``flattened`` made ``vectors`` of; ``like`` has its shapes."""
    rest = {vector.dtype: vector for vector in vectors}
    leaves = []
    for leaf in tf.nest.flatten(like):
        dtype = summed_dtype(tf.as_dtype(leaf.dtype))
        size = tf.size(leaf)
        leaf_vector, rest[dtype] = rest[dtype][:size], rest[dtype][size:]
        shaped = tf.reshape(leaf_vector, tf.shape(leaf))
        leaves.append(tf.cast(tf.ensure_shape(shaped, leaf.shape), leaf.dtype))
    return tf.nest.pack_sequence_as(like, leaves)


def summed_dtype(dtype: tf.DType) -> tf.DType:
    """The dtype in which numbers of ``dtype`` are added up."""
    if dtype in _SUMMED:
        return dtype
    if dtype not in _WIDER:
        raise ConfigError(
            f"A tensor of dtype {dtype.name} cannot be added up over several devices. "
            "Keep it as float32 or int32, or run on one device."
        )
    return _WIDER[dtype]
