"""Central noise on a sum of whole numbers: the aggregator adds it once, exactly.

A client clips its contribution, brings it to a grid by random rounding that is repeated
until its squared length, a whole number, is within a bound, and sends whole numbers.
The aggregator adds them up without error, adds exact discrete Gaussian noise, and only
then goes back to real numbers. NumPy and Python integers only: no TensorFlow.

Source: Kairouz, Liu and Steinke (2021), The distributed discrete Gaussian mechanism,
https://arxiv.org/abs/2102.06387, Algorithm 1 (conditional randomised rounding, without
its rotation); Canonne, Kamath and Steinke (2020), https://arxiv.org/abs/2004.00010.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError
from fedtrain.core.mechanism import CRYPTOGRAPHIC, Mechanism, Unit
from fedtrain.privacy import events
from fedtrain.privacy.discrete_gaussian import discrete_gaussian
from fedtrain.core.keystream import WordSource
from fedtrain.privacy.staircase import Integers

Reals = npt.NDArray[np.floating[Any]]
# Each attempt is within the bound with a chance of at least 1 - exp(-1/2).
_ATTEMPTS = 64
# So that squares of coordinates add up in 64 bits.
_MOST_GRID_BITS = 30


@dataclass(frozen=True, kw_only=True)
class IntegerGaussian:
    """The discrete Gaussian mechanism on a sum of clipped, rounded contributions.

    Attributes:
      unit: Whose contribution is clipped: ``"client"``, or a row or entity where a
        contribution is that of one unit alone.
      clipping_norm: L2 bound on a contribution before rounding.
      noise_multiplier: The noise's standard deviation over the bound after rounding.
      num_weights: Coordinates of a contribution.
      grid_bits: The grid is ``clipping_norm / 2^grid_bits``.

    Guarantees:
      Adding or removing one contribution that ``encode`` could have made (the receiver
      checks: ``checked``) moves the sum by at most ``integer_norm_squared`` in squared
      length, exactly. The noised sum is rho-zCDP for ``rho = 1 / (2 z^2)`` (Canonne et
      al., Theorem 14). Any number of contributions may be missing.
    """

    unit: Unit
    clipping_norm: float
    noise_multiplier: float
    num_weights: int
    grid_bits: int = 16

    def __post_init__(self) -> None:
        """Ranges; a grid of at most 2^30 units."""
        validate.positive(
            clipping_norm=self.clipping_norm, noise_multiplier=self.noise_multiplier
        )
        validate.positive_integer(
            num_weights=self.num_weights, grid_bits=self.grid_bits
        )
        if self.grid_bits > _MOST_GRID_BITS:
            raise ConfigError(
                f"grid_bits must be at most {_MOST_GRID_BITS}, got {self.grid_bits}."
            )

    @property
    def grid(self) -> float:
        """What one unit of the integers stands for."""
        return math.ldexp(self.clipping_norm, -self.grid_bits)

    @property
    def integer_norm_squared(self) -> int:
        """The largest squared length of an encoded contribution, in grid units.

        Kairouz et al., Proposition 4 with beta = exp(-1/2): rounded at random, half of
        all attempts or so are within it. The least of that and what rounding every
        coordinate by a whole unit gives.
        """
        norm, size = 1 << self.grid_bits, self.num_weights
        root = math.isqrt(size) + 1
        chance = norm * norm + size // 4 + 1 + norm + root // 2 + 1
        return min(chance, (norm + root) ** 2)

    @property
    def noise_variance(self) -> Fraction:
        """The discrete Gaussian's sigma squared, in grid units, rounded up."""
        exact = Fraction(self.noise_multiplier) ** 2 * self.integer_norm_squared
        return Fraction(math.ceil(exact * 2**20), 2**20)

    def mechanism(self) -> Mechanism:
        """What the accountant reads; the rounded sensitivity is in the multiplier."""
        variance = float(self.noise_variance)
        return Mechanism(
            name="integer_gaussian",
            unit=self.unit,
            trust="central",
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            noise_stddev_on_sum=math.sqrt(variance) * self.grid,
            dp_event=events.concentrated(0.5 / self.noise_multiplier**2),
            details=(
                ("noise_source", CRYPTOGRAPHIC),
                ("grid_bits", self.grid_bits),
                ("integer_norm_squared", self.integer_norm_squared),
            ),
        )

    def encode(self, update: Reals, source: WordSource) -> Integers:
        """One contribution as whole numbers, int64 [num_weights]; at the client.

        Args:
          update: Real numbers [num_weights]; all zero if any is not finite.
          source: Of the rounding; the promise does not rest on it.
        """
        scaled = self._clipped(np.asarray(update, np.float64))
        below = np.floor(scaled)
        threshold = ((scaled - below) * 2.0**53).astype(np.uint64)
        for _ in range(_ATTEMPTS):
            up = source.words(self.num_weights) >> np.uint64(11) < threshold
            rounded = (below + up).astype(np.int64)
            if self._is_within(rounded):
                return rounded
        return np.trunc(scaled).astype(np.int64)

    def checked(self, encoded: Integers) -> Integers:
        """``encoded`` if an honest client could have sent it.

        Raises:
          ConfigError: Of another shape or type, or longer than the bound.
        """
        if encoded.dtype != np.int64 or encoded.shape != (self.num_weights,):
            raise ConfigError(
                f"encoded must be int64 [{self.num_weights}], got {encoded.dtype} "
                f"{list(encoded.shape)}."
            )
        if not self._is_within(encoded):
            raise ConfigError(
                "encoded is longer than its bound of "
                f"{self.integer_norm_squared} in squared grid units: refuse it, and "
                "count its client as lost."
            )
        return encoded

    def noised_sum(self, total: Integers, source: WordSource) -> Integers:
        """The sum with its noise, int64; by the aggregator, once for each sum.

        Args:
          total: Of checked contributions, int64 [num_weights].
          source: A ``KeyStream`` of the operating system's key, with the round and what
            was summed among its labels: the same sum repeats its noise, another one
            never does.
        """
        variance = self.noise_variance
        return total + discrete_gaussian(total.size, variance=variance, source=source)

    def decode(self, noised: Integers) -> npt.NDArray[np.float64]:
        """Real numbers from the noised sum: what may be released, [num_weights]."""
        return noised * self.grid

    def _clipped(self, update: Reals) -> npt.NDArray[np.float64]:
        """In grid units; rounding errors of floats are caught by the integer check."""
        largest = float(np.max(np.abs(update), initial=0.0))
        if not math.isfinite(largest) or largest == 0.0:
            return np.zeros(self.num_weights)
        shape = update / largest
        length = math.sqrt(float(np.sum(np.square(shape))))
        factor = min(largest / self.grid, (1 << self.grid_bits) / length)
        return np.asarray(shape * factor)

    def _is_within(self, integers: Integers) -> bool:
        """Whether the squared length, a whole number, is within the bound."""
        bound = self.integer_norm_squared
        most = math.isqrt(bound)
        if np.any(integers > most) or np.any(integers < -most):
            return False
        # Halves of 32 bits: no sum of fewer than 2^31 squares can overflow.
        squares = np.square(integers).astype(np.uint64)
        low = int(np.sum(squares & np.uint64(0xFFFFFFFF)))
        high = int(np.sum(squares >> np.uint64(32)))
        return (high << 32) + low <= bound
