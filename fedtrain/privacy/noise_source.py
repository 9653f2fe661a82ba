"""Where the noise of training comes from: a seed, or a secret key.

Seeded noise makes a simulation repeatable, and predictable. Released noise is drawn on
the host from a cryptographic stream, as whole numbers, and added to a sum of gradients
that was brought to the same grid before: what leaves the step is a whole number of grid
units, whose last bits tell nothing (Mironov, 2012, On significance of the least
significant bits for differential privacy).
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fedtrain.client_work.batching import Batching, Poisson, PoissonEntities
from fedtrain.client_work.local_sgd import step_seed
from fedtrain.core import nests, seeds
from fedtrain.core.keystream import KeyStream, Words, WordSource
from fedtrain.core.mechanism import CRYPTOGRAPHIC, Mechanism
from fedtrain.privacy.rounded_gaussian import rounded_gaussian
from fedtrain.privacy.secret_sampling import SecretSampling

# Of the clipping norm: what rounding to the grid, and sums in floating point, may add.
_SLACK = 2.0**-9
_GRID_BITS = 30
# Far beyond any sum, and so that adding noise cannot overflow 64 bits.
_LARGEST = 2.0**62


class Noise(Protocol):
    """A source of noise for one client's steps."""

    @property
    def details(self) -> tuple[tuple[str, Any], ...]:
        """What the mechanism says of it."""
        ...

    @property
    def can_draw(self) -> bool:
        """Whether it has what noise is drawn from; else it describes."""
        ...

    def stddev_on_sum(self, clipping_norm: float, noise_multiplier: float) -> float:
        """The noise's standard deviation that earns the multiplier."""
        ...

    def batching(self, batching: Poisson | PoissonEntities) -> Batching:
        """Who draws the batches."""
        ...

    def noised(self, total: Any, mechanism: Mechanism, seed: Any, step: Any) -> Any:
        """``total`` with the noise of one step.

        Args:
          total: Nest of float tensors: a batch's sum of clipped gradients.
          mechanism: Whose noise it is.
          seed: The client's own of this round, int32 [2].
          step: The local step, int32 scalar.
        """
        ...

    def words(self, seed: seeds.HostSeed, label: str) -> WordSource:
        """Words for whole numbers, drawn on the host.

        Args:
          seed: The client's own of this round, or the server's, int32 [2].
          label: What for.
        """
        ...


class _SeededWords:
    """Words of a simulation."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random

    def words(self, num: int) -> Words:
        """The next ``num`` words, uint64."""
        return self._random.integers(0, 2**64, num, np.uint64)


@dataclass(frozen=True)
class SeededNoise:
    """Noise from the client's seed, for simulations: NOT A RELEASE."""

    @property
    def details(self) -> tuple[tuple[str, Any], ...]:
        """Nothing to add."""
        return ()

    @property
    def can_draw(self) -> bool:
        """Always."""
        return True

    def stddev_on_sum(self, clipping_norm: float, noise_multiplier: float) -> float:
        """The product of the two."""
        return noise_multiplier * clipping_norm

    def batching(self, batching: Poisson | PoissonEntities) -> Batching:
        """Drawn from the client's seed."""
        return batching

    def noised(self, total: Any, mechanism: Mechanism, seed: Any, step: Any) -> Any:
        """The sum plus normal numbers."""
        noise_seed = tf.unstack(seeds.split(step_seed(seed, step), 2))[1]
        stddev = mechanism.noise_stddev_on_sum
        return nests.add(total, seeds.normal_like(total, noise_seed, stddev=stddev))

    def words(self, seed: seeds.HostSeed, label: str) -> WordSource:
        """Repeatable words: the numbers drawn are exact, and predictable."""
        return _SeededWords(seeds.generator(seeds.derive(seed, label)))


SEEDED = SeededNoise()


@dataclass(frozen=True)
class ReleasedNoise:
    """Noise and batches from a cryptographic stream, for one client and one run.

    Give each round (and each attempt at it with other data) another client seed: noise
    is decided by the key, the seed and the step. ``client_seed`` makes such seeds.

    It is drawn by Python on the host, so a step runs eagerly or in a graph of the same
    process, not under XLA and not vectorised over clients.

    Attributes:
      key: 32 bytes that nobody else has, from ``noise_key``.

    Guarantees:
      Let q be the batch's sum of clipped gradients in grid units, each coordinate
      rounded to the nearest whole number, and N the continuous Gaussian. What leaves a
      step is q + floor(N) exactly: a function of q + N, so all that is proved of the
      Gaussian mechanism with Poisson sampling holds. The noise multiplier is relative
      to ``clipping_norm (1 + 2^-9)``: 2^-10 of it for the rounding to the grid (enough
      for 2^38 weights), 2^-10 for what one row changes in the floating-point rounding
      of the sum. The first is proved, the second is measured (a worst-case bound that
      counts every operation's error would be vacuous); it is the one assumption.
    """

    key: bytes = field(repr=False)

    @property
    def details(self) -> tuple[tuple[str, Any], ...]:
        """The source's name and what it adds to the sensitivity."""
        return (("noise_source", CRYPTOGRAPHIC), ("rounding_slack", _SLACK))

    @property
    def can_draw(self) -> bool:
        """Whether there is a key."""
        return bool(self.key)

    def stddev_on_sum(self, clipping_norm: float, noise_multiplier: float) -> float:
        """Relative to the clipping norm and what rounding adds to it."""
        return noise_multiplier * clipping_norm * (1.0 + _SLACK)

    def batching(self, batching: Poisson | PoissonEntities) -> Batching:
        """Drawn from the key."""
        return SecretSampling(batching=batching, key=self.key)

    def noised(self, total: Any, mechanism: Mechanism, seed: Any, step: Any) -> Any:
        """The sum on the grid, plus whole numbers."""
        leaves = tf.nest.flatten(total)
        sizes = [math.prod(leaf.shape) for leaf in leaves]
        bits = scale_bits(mechanism)
        grid = mechanism.noise_stddev_on_sum / 2.0**bits
        draw = partial(self._drawn, sum(sizes), bits)
        noise = tf.numpy_function(draw, [seed, step], tf.int64)
        noise = tf.split(tf.ensure_shape(noise, [sum(sizes)]), sizes)
        noised = [
            _on_grid(leaf, tf.reshape(part, leaf.shape), grid)
            for leaf, part in zip(leaves, noise, strict=True)
        ]
        return tf.nest.pack_sequence_as(total, noised)

    def words(self, seed: seeds.HostSeed, label: str) -> WordSource:
        """A stream of the key."""
        return KeyStream(self.key, label, np.asarray(seed, "<i4").tobytes())

    def client_seed(self, round_number: int, input_hash: str) -> seeds.HostSeed:
        """The seed that a client starts a round with, int32 [2].

        Args:
          round_number: From 0.
          input_hash: Of all that decides the contribution but the noise: the broadcast,
            the rows, the attempt if it asks for fresh noise. The same inputs repeat the
            same noise; others draw other noise (but for a chance of 2^-64 each). With
            trust distributed it contains what names the session of secure aggregation:
            two sums with the same shares in them would differ by too little noise.
        """
        word = KeyStream(self.key, "seed", round_number, input_hash).words(1)
        return word.view("<i4").astype(np.int32)

    def _drawn(self, num: int, bits: int, seed: Any, step: Any) -> npt.NDArray[Any]:
        label = np.asarray(seed, "<i4").tobytes()
        source = KeyStream(self.key, "dp_sgd", label, int(step))
        return rounded_gaussian(num, scale_bits=bits, source=source)


# For the side that knows the mechanism and not the key: it describes, it cannot draw.
NOISE_OF_PARTNERS = ReleasedNoise(b"")


def scale_bits(mechanism: Mechanism) -> int:
    """The noise's standard deviation is 2 to this number of grid units.

    So the grid is at most 2^-30 (1 + 2^-9) of the clipping norm.
    """
    return _GRID_BITS + max(0, math.ceil(math.log2(mechanism.noise_multiplier)))


def _on_grid(leaf: Any, noise: Any, grid: float) -> Any:
    units = tf.round(tf.cast(leaf, tf.float64) / grid)
    units = tf.where(tf.math.is_finite(units), units, tf.zeros_like(units))
    whole = tf.cast(tf.clip_by_value(units, -_LARGEST, _LARGEST), tf.int64)
    return tf.cast(tf.cast(whole + noise, tf.float64) * grid, leaf.dtype)
