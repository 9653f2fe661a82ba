"""Contributions as whole numbers: sums without error, and modulo 2^32.

A contribution is clipped, brought to a grid and rounded at random. Sums of whole
numbers depend neither on their order nor on who adds them up, masks vanish from them
exactly, and noise can be exact. NumPy only, in blocks: besides input and output it
needs the memory of a block. Where no coordinate may stand out from the others, put
``fedtrain.aggregation.rotation`` before it.

Source: Kairouz, Liu and Steinke (2021), The distributed discrete Gaussian mechanism,
https://arxiv.org/abs/2102.06387, Algorithm 1 and Proposition 4 (conditional randomised
rounding); Bonawitz et al. (2017), https://eprint.iacr.org/2017/281 (the ring).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import WordSource

Reals = npt.NDArray[np.floating[Any]]
Encoded = npt.NDArray[np.int32]
Ring = npt.NDArray[np.uint32]

RING_BITS = 32
MOST_GRID_BITS = 30
# Each attempt is within the bound with a chance of at least 1 - exp(-1/2).
_ATTEMPTS = 64
_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """The grid that contributions are brought to, and what it does to their length.

    Attributes:
      num_weights: Coordinates of a contribution.
      grid_bits: The clipping norm is 2^grid_bits units of the grid.
      bounded: What the clipping norm bounds: the whole ``"contribution"``, which is
        clipped here, or each ``"unit"`` (row or entity) in it, which was clipped where
        its gradient was, so that a contribution is a sum of bounded terms.
      largest: With ``"unit"``, each coordinate is cut to at most so many units.

    Guarantees:
      What ``encode`` makes of neighbours differs by whole numbers of squared length at
      most ``sensitivity_squared``. With ``"contribution"`` a client's neighbour is
      zero, and the bound is checked in whole numbers. With ``"unit"``, neighbours are
      sums at most ``1 + 2^-10`` clipping norms apart (2^-10 for what one unit changes
      in the floating-point rounding of the sum, which is measured and not proved),
      rounded by the same random words, which do not depend on them: each coordinate
      then moves by less than one more than the sums' difference in grid units. Cutting
      coordinates brings no two sums further apart.
    """

    num_weights: int
    grid_bits: int = 16
    bounded: Literal["contribution", "unit"] = "contribution"
    largest: int = 1 << 30

    def __post_init__(self) -> None:
        """Ranges; a grid of at most 2^30 units."""
        validate.positive_integer(
            num_weights=self.num_weights, grid_bits=self.grid_bits, largest=self.largest
        )
        validate.one_of(("contribution", "unit"), bounded=self.bounded)
        if self.grid_bits > MOST_GRID_BITS or self.largest > 1 << 30:
            raise ConfigError(
                f"grid_bits must be at most {MOST_GRID_BITS} and largest at most "
                f"2^30, got {self.grid_bits} and {self.largest}."
            )

    @property
    def sensitivity_squared(self) -> int:
        """Squared length of what one unit (or client) moves a sum by, at most.

        For a whole contribution the least of Proposition 4 with beta = exp(-1/2), which
        about half of all attempts at rounding keep, and of rounding every coordinate by
        a whole unit, which is all that holds for sums.
        """
        norm, size = 1 << self.grid_bits, self.num_weights
        root = math.isqrt(size) + 1
        if self.bounded == "unit":
            return (norm + -(-norm >> 10) + root) ** 2
        chance = norm * norm + size // 4 + 1 + norm + root // 2 + 1
        return min(chance, (norm + root) ** 2)

    @property
    def largest_coordinate(self) -> int:
        """What no coordinate of an encoded contribution exceeds in magnitude."""
        if self.bounded == "unit":
            return self.largest
        return math.isqrt(self.sensitivity_squared)

    def grid(self, clipping_norm: float) -> float:
        """What one unit of the whole numbers stands for."""
        return math.ldexp(clipping_norm, -self.grid_bits)

    def encode(
        self, update: Reals, *, clipping_norm: float, source: WordSource
    ) -> Encoded:
        """One contribution as whole numbers, int32 [num_weights]; at the client.

        Args:
          update: Real numbers [num_weights]. As a whole contribution it becomes zero if
            any is not finite.
          clipping_norm: L2 bound on the contribution, or that of each of its units.
          source: Of the rounding.
        """
        vector = _shaped(update, self.num_weights)
        out = np.zeros(self.num_weights, np.int32)
        at_random = partial(_at_random, source)
        if self.bounded == "unit":
            _fill(out, vector, partial(self._cut, clipping_norm), at_random)
            return out
        scale = self._clipped(vector, clipping_norm)
        if scale is None:
            return out
        for _ in range(_ATTEMPTS):
            if _fill(out, vector, scale, at_random) <= self.sensitivity_squared:
                return out
        _fill(out, vector, scale, np.trunc)
        return out

    def checked(self, encoded: Encoded) -> Encoded:
        """``encoded`` if an honest client could have sent it, without noise.

        Raises:
          ConfigError: Of another shape or type, or longer than the bound.
        """
        if encoded.dtype != np.int32 or encoded.shape != (self.num_weights,):
            raise ConfigError(
                f"encoded must be int32 [{self.num_weights}], got {encoded.dtype} "
                f"{list(encoded.shape)}."
            )
        most = self.largest_coordinate
        too_large = bool(np.any(encoded > most) or np.any(encoded < -most))
        if too_large or not self._is_within(encoded):
            raise ConfigError(
                f"encoded is longer than its bound ({most} in a coordinate, "
                f"{self.sensitivity_squared} in squared grid units): refuse it, and "
                "count its client as lost."
            )
        return encoded

    def decode(self, total: Encoded, clipping_norm: float) -> npt.NDArray[np.float64]:
        """Real numbers from a sum of whole ones, [num_weights]."""
        return np.asarray(total * self.grid(clipping_norm))

    def _is_within(self, encoded: Encoded) -> bool:
        if self.bounded == "unit":
            return True  # a sum of units has no bound but that of its coordinates
        total = sum(_squared_length(encoded[at]) for at in _blocks(self.num_weights))
        return total <= self.sensitivity_squared

    def _clipped(self, vector: Reals, clipping_norm: float) -> Any:
        """Brings a block to grid units; None where all is zero.

        Rounding errors of floats are caught by the integer check.
        """
        largest = float(np.max(np.abs(vector)))
        if not math.isfinite(largest) or largest == 0.0:
            return None
        blocks = (vector[at] / largest for at in _blocks(self.num_weights))
        length = math.sqrt(
            sum(float(np.sum(np.square(b, dtype=np.float64))) for b in blocks)
        )
        factor = min(largest / self.grid(clipping_norm), (1 << self.grid_bits) / length)
        return lambda block: block.astype(np.float64) / largest * factor

    def _cut(self, clipping_norm: float, block: Reals) -> Reals:
        with np.errstate(over="ignore"):
            units = block.astype(np.float64) / self.grid(clipping_norm)
        return np.clip(np.nan_to_num(units), -self.largest, self.largest)


def to_ring(encoded: Encoded) -> Ring:
    """The same bits modulo 2^32, for sums that wrap."""
    return encoded.view(np.uint32)


def from_ring(total: Ring) -> Encoded:
    """The whole numbers from -2^31 to 2^31 - 1 that ``total`` stands for."""
    return total.view(np.int32)


def _fill(
    out: Encoded,
    vector: Reals,
    scale: Callable[[Reals], Reals],
    rounded: Callable[[Reals], Reals],
) -> int:
    """Writes the rounded blocks to ``out``; returns their squared length."""
    total = 0
    for at in _blocks(len(out)):
        out[at] = rounded(scale(vector[at]))
        total += _squared_length(out[at])
    return total


def _at_random(source: WordSource, scaled: Reals) -> Reals:
    """Up or down to a whole number, so that the mean is ``scaled``."""
    below = np.floor(scaled)
    threshold = ((scaled - below) * 2.0**53).astype(np.uint64)
    return np.asarray(below + (source.words(len(scaled)) >> np.uint64(11) < threshold))


def _squared_length(block: Encoded) -> int:
    """Exact: halves of 32 bits, of which no block's sum can overflow."""
    squares = np.square(block.astype(np.int64)).astype(np.uint64)
    low = int(np.sum(squares & np.uint64(0xFFFFFFFF)))
    return (int(np.sum(squares >> np.uint64(32))) << 32) + low


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _shaped(update: Reals, num_weights: int) -> Reals:
    vector = np.asarray(update)
    if vector.shape != (num_weights,):
        raise ConfigError(
            f"update must have the shape [{num_weights}], got {list(vector.shape)}."
        )
    return vector
