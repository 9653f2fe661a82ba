"""The only place where random numbers are drawn.

A seed is an int32 array or tensor of shape [2]. Two families of functions work on it:

- on the host (``root``, ``derive``, ``generator``; for many seeds in one go
  ``derive_for_each``, ``derive_from_each``, ``words``, ``generators``): which clients,
  which rows, in which order. Plain numpy, so every runtime draws the same.
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
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fedtrain.core.philox import philox

# Operations of this name number places only to hash them: no row learns its own.
HASHED_PLACES = "fedtrain_hashed_places"
Seed = Any
HostSeed = npt.NDArray[np.int32]

_SMALL = 2**14
# One row for each seed: int32 [seeds, 2].
HostSeeds = npt.NDArray[np.int32]


def root(seed: int) -> HostSeed:
    """The seed of a whole run, from the integer that a user gives."""
    return _digest(b"root", str(int(seed)).encode())


def derive(seed: Seed, *labels: str | int) -> HostSeed:
    """An independent seed for what ``labels`` name, such as ``("round", 3)``."""
    return _digest(_bytes(seed), *map(_encoded, labels))


def derive_for_each(seed: Seed, label: str, names: Iterable[str]) -> HostSeeds:
    """``derive(seed, label, name)`` for each name, one below the other."""
    common = _hash(_bytes(seed), _encoded(label))
    return _rows(_digest_after(common, _encoded(name)) for name in names)


def derive_from_each(many: HostSeeds, *labels: str | int) -> HostSeeds:
    """``derive(seed, *labels)`` for each row of ``many``, one below the other."""
    framed = b"".join(_framed(_encoded(label)) for label in labels)
    return _rows(
        hashlib.blake2b(_framed(seed.tobytes()) + framed, digest_size=8).digest()
        for seed in np.ascontiguousarray(many, np.int32)
    )


def generator(seed: Seed) -> np.random.Generator:
    """A numpy generator for choices made on the host."""
    return np.random.Generator(np.random.Philox(key=_key(seed)))


def generators(many: HostSeeds) -> Iterator[np.random.Generator]:
    """``generator(seed)`` for each row, for use before the next one is asked for.

    It is one generator that starts again, because making one takes longer than drawing
    what a small client needs.
    """
    philox_bits = np.random.Philox(key=0)
    start = philox_bits.state
    random = np.random.Generator(philox_bits)
    for seed in many:
        start["state"]["key"][0] = _key(seed)
        philox_bits.state = start
        yield random


def words(many: HostSeeds, num: Any) -> tuple[npt.NDArray[np.uint32], Any]:
    """At least ``num[i]`` random 32-bit words from each seed ``many[i]``.

    Returns:
      All words, one seed's after another's, and where each seed's words start.
    """
    num_blocks = -(-np.asarray(num, np.int64) // 4)
    first = np.cumsum(num_blocks) - num_blocks
    counters = np.arange(num_blocks.sum()) - np.repeat(first, num_blocks)
    keys = np.repeat(np.asarray(many, np.int32).view(np.uint32), num_blocks, axis=0)
    return philox(counters.astype(np.uint32), keys).reshape(-1), 4 * first


def split(seed: Seed, num: int) -> tf.Tensor:
    """``num`` independent seeds, int32 of shape [num, 2]."""
    return tf.bitcast(_bits([num, 2], seed, tf.uint32), tf.int32)


def fold(seed: Seed, number: Any) -> tf.Tensor:
    """An independent seed for ``number``, int32 [2].

    Plain integer arithmetic, so that it can be vectorised over seeds: whatever draws
    for many clients side by side derives its seeds with this.

    Args:
      seed: int32 [2].
      number: Integer or int32 scalar, at least 0.

    Source: Steele, Lea and Flood (2014), Fast splittable pseudorandom number
    generators (the mixing function of SplitMix64).
    """
    # Casts, not bitcasts: those cannot be vectorised.
    words = tf.cast(tf.cast(seed, tf.uint32), tf.uint64)
    half = tf.constant(32, tf.uint64)
    state = words[0] + tf.bitwise.left_shift(words[1], half)
    steps = tf.cast(number, tf.uint64) + tf.constant(1, tf.uint64)
    bits = _mixed_64(state + steps * tf.constant(0x9E3779B97F4A7C15, tf.uint64))
    low = tf.bitwise.bitwise_and(bits, tf.constant(0xFFFFFFFF, tf.uint64))
    both = tf.stack([low, tf.bitwise.right_shift(bits, half)])
    return tf.cast(tf.cast(both, tf.uint32), tf.int32)


def uniform(shape: Sequence[int] | tf.Tensor, seed: Seed, dtype: Any = None) -> Any:
    """Uniform numbers in (0, 1), never 0 and never 1."""
    dtype = tf.as_dtype(dtype or tf.float32)
    if dtype == tf.float64:
        bits = tf.bitwise.right_shift(_bits(shape, seed, tf.uint64), 11)
        return (tf.cast(bits, dtype) + 0.5) * 2.0**-53
    bits = tf.bitwise.right_shift(_bits(shape, seed, tf.uint32), 9)
    return tf.cast((tf.cast(bits, tf.float32) + 0.5) * 2.0**-23, dtype)


def signs(size: int, seed: Seed, dtype: Any = None) -> tf.Tensor:
    """``size`` numbers that are 1 or -1, each with probability one half."""
    bits = _bits([size], seed, tf.int32)
    return tf.cast(1 - 2 * tf.cast(bits < 0, tf.int32), dtype or tf.float32)


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
    first, second = tf.unstack(uniform(tf.stack([2, half]), seed, dtype), 2)
    radius = tf.sqrt(-2.0 * tf.math.log(first))
    angle = tf.cast(2.0 * math.pi, dtype) * second
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
    with tf.name_scope(HASHED_PLACES):
        index = tf.cast(tf.range(size), tf.uint32)
    bits = _mixed(_mixed(index + _mixed(key[0])) + key[1])
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32)
    uniforms = (high + 0.5) * 2.0**-24
    return tf.reshape(tf.cast(uniforms, dtype or tf.float32), shape)


def normal_like(nest: Any, seed: Seed, *, stddev: Any) -> Any:
    """A nest of independent normal numbers, shaped like ``nest`` (simulation only).

    Small leaves of one type share a draw, whose start takes longer than its numbers.
    """
    leaves = tf.nest.flatten(nest)
    leaf_seeds = split(seed, max(len(leaves), 1))
    noise: list[Any] = [None] * len(leaves)
    for group in _drawn_together(leaves):
        shapes = [tuple(leaves[i].shape) for i in group]
        dtype = leaves[group[0]].dtype
        drawn = _normals(shapes, leaf_seeds[group[0]], stddev=stddev, dtype=dtype)
        for i, values in zip(group, drawn, strict=True):
            noise[i] = values
    return tf.nest.pack_sequence_as(nest, noise)


def _drawn_together(leaves: list[Any]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i, leaf in enumerate(leaves):
        small = math.prod(leaf.shape) <= _SMALL
        # Names, because a type of TensorFlow equals its own number.
        key = tf.as_dtype(leaf.dtype).name if small else f"leaf {i}"
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _normals(
    shapes: list[tuple[int, ...]], seed: Seed, *, stddev: Any, dtype: Any
) -> list[tf.Tensor]:
    if len(shapes) == 1:
        return [normal(shapes[0], seed, stddev=stddev, dtype=dtype)]
    sizes = [math.prod(shape) for shape in shapes]
    drawn = normal([sum(sizes)], seed, stddev=stddev, dtype=dtype)
    parts = tf.split(drawn, sizes)
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


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


def _mixed_64(bits: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint64))
        bits = tf.bitwise.bitwise_xor(bits, shifted) * tf.constant(factor, tf.uint64)
    shifted = tf.bitwise.right_shift(bits, tf.constant(31, tf.uint64))
    return tf.bitwise.bitwise_xor(bits, shifted)


def _digest(*parts: bytes) -> HostSeed:
    return np.frombuffer(_hash(*parts).digest(), np.int32).copy()


def _hash(*parts: bytes) -> Any:
    return hashlib.blake2b(b"".join(map(_framed, parts)), digest_size=8)


def _digest_after(common: Any, part: bytes) -> bytes:
    digest = common.copy()
    digest.update(_framed(part))
    return bytes(digest.digest())


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "little") + part


def _encoded(label: str | int) -> bytes:
    return f"{type(label).__name__}:{label}".encode()


def _bytes(seed: Seed) -> bytes:
    return np.asarray(seed, np.int32).tobytes()


def _key(seed: Seed) -> int:
    high, low = np.asarray(seed, np.int32).view(np.uint32).tolist()
    return int(high << 32 | low)


def _rows(digests: Iterable[bytes]) -> HostSeeds:
    return np.frombuffer(b"".join(digests), np.int32).reshape([-1, 2])
