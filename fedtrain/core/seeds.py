"""The only place where random numbers are drawn.

A seed is an int32 array or tensor of shape [2]. Two families of functions work on it:

- on the host (``root``, ``derive``, ``generator``): which clients, which rows, in which
  order. Plain numpy, so every runtime draws the same.
- in the graph (``split``, ``uniform``, ``normal``): noise. Built from Philox integers,
  because TensorFlow's own normals differ between eager and compiled execution, while
  its integers agree to the bit.

A seed makes a run repeatable and therefore makes its noise predictable: everything here
is for simulation. Released noise does not come from this module.

Source: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3 (Philox);
Box and Muller (1958).
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Seed = Any
HostSeed = npt.NDArray[np.int32]


def root(seed: int) -> HostSeed:
    """The seed of a whole run, from the integer that a user gives."""
    return _digest(b"root", str(int(seed)).encode())


def derive(seed: Seed, *labels: str | int) -> HostSeed:
    """An independent seed for what ``labels`` name, such as ``("round", 3)``."""
    parts = [f"{type(label).__name__}:{label}".encode() for label in labels]
    return _digest(np.asarray(seed, np.int32).tobytes(), *parts)


def generator(seed: Seed) -> np.random.Generator:
    """A numpy generator for choices made on the host."""
    key = np.asarray(seed, np.int32).view(np.uint32)
    return np.random.Generator(np.random.Philox(key=int(key[0]) << 32 | int(key[1])))


def split(seed: Seed, num: int) -> tf.Tensor:
    """``num`` independent seeds, int32 of shape [num, 2]."""
    return tf.bitcast(_bits([num, 2], seed, tf.uint32), tf.int32)


def uniform(shape: Sequence[int] | tf.Tensor, seed: Seed, dtype: Any = None) -> Any:
    """Uniform numbers in (0, 1), never 0 and never 1."""
    dtype = tf.as_dtype(dtype or tf.float32)
    if dtype == tf.float64:
        bits = tf.bitwise.right_shift(_bits(shape, seed, tf.uint64), 11)
        return (tf.cast(bits, dtype) + 0.5) * 2.0**-53
    bits = tf.bitwise.right_shift(_bits(shape, seed, tf.uint32), 9)
    return tf.cast((tf.cast(bits, tf.float32) + 0.5) * 2.0**-23, dtype)


def normal(
    shape: Sequence[int] | tf.Tensor, seed: Seed, *, stddev: Any, dtype: Any = None
) -> tf.Tensor:
    """Normal numbers of mean 0 and standard deviation ``stddev`` (simulation only).

    The same in eager execution, in a graph and under XLA, up to the rounding of
    ``log``, ``cos`` and ``sin``. In float32 the largest magnitude is 5.8 ``stddev``.
    """
    dtype = tf.as_dtype(dtype or tf.float32)
    size = tf.reduce_prod(tf.cast(shape, tf.int32))
    half = (size + 1) // 2
    uniforms = uniform(tf.stack([2, half]), seed, dtype)
    radius = tf.sqrt(-2.0 * tf.math.log(uniforms[0]))
    angle = tf.cast(2.0 * math.pi, dtype) * uniforms[1]
    both = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(both[:size], shape) * tf.cast(stddev, dtype)


def hashed_uniform(
    shape: Sequence[int] | tf.Tensor, seed: Seed, dtype: Any = None
) -> tf.Tensor:
    """Uniform numbers in (0, 1) for dropout masks; never for privacy noise.

    Each is a hash of its index and the seed, in plain integer arithmetic. So, unlike
    TensorFlow's random operations, it can be vectorised over seeds. 24 bits fine.

    Source: Wellons, Prospecting for hash functions,
    https://nullprogram.com/blog/2018/07/31/ (the constants of lowbias32).
    """
    key = tf.cast(tf.cast(seed, tf.int32), tf.uint32)
    size = tf.reduce_prod(tf.cast(shape, tf.int32))
    index = tf.cast(tf.range(size), tf.uint32)
    bits = _mixed(_mixed(index + _mixed(key[0])) + key[1])
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32)
    uniforms = (high + 0.5) * 2.0**-24
    return tf.reshape(tf.cast(uniforms, dtype or tf.float32), shape)


def normal_like(nest: Any, seed: Seed, *, stddev: Any) -> Any:
    """A nest of independent normal numbers, shaped like ``nest`` (simulation only)."""
    leaves = tf.nest.flatten(nest)
    leaf_seeds = split(seed, max(len(leaves), 1))
    noise = [
        normal(leaf.shape, leaf_seeds[i], stddev=stddev, dtype=leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return tf.nest.pack_sequence_as(nest, noise)


def _bits(shape: Any, seed: Seed, dtype: Any) -> tf.Tensor:
    return tf.random.stateless_uniform(  # noqa: TID251 - the one place
        shape, seed, minval=None, maxval=None, dtype=dtype, alg="philox"
    )


def _mixed(bits: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        shifted = tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        bits = tf.bitwise.bitwise_xor(bits, shifted) * tf.constant(factor, tf.uint32)
    shifted = tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32))
    return tf.bitwise.bitwise_xor(bits, shifted)


def _digest(*parts: bytes) -> HostSeed:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(4, "little") + part)
    return np.frombuffer(digest.digest(), np.int32).copy()
