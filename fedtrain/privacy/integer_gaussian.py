"""Integer noise on a sum of whole numbers: the server's, or a share of each client.

Contributions are brought to a grid (``FixedPoint``) and get exact discrete Gaussian
noise, once on their sum (trust central) or a share each (trust distributed), before
anything goes back to real numbers. NumPy and Python integers only: no TensorFlow.

Source: Kairouz, Liu and Steinke (2021), The distributed discrete Gaussian mechanism,
https://arxiv.org/abs/2102.06387, Algorithms 1 and 2, without rotation.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from fedtrain.aggregation.fixed_point import MOST_GRID_BITS, FixedPoint, Ring
from fedtrain.core import validate
from fedtrain.core.errors import PrivacyError
from fedtrain.core.keystream import WordSource
from fedtrain.core.mechanism import Mechanism, Unit
from fedtrain.privacy import events
from fedtrain.privacy.discrete_gaussian import discrete_gaussian
from fedtrain.privacy.distributed_gaussian import (
    MOST_DISTANCE,
    MOST_LOG2_WRAP,
    ROUNDING_VARIANCE,
    distance_to_gaussian,
    log2_wrap_probability,
    share_of,
)

_BLOCK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class IntegerGaussian:
    """The discrete Gaussian mechanism on sums modulo 2^32, in one share or in many.

    Attributes:
      unit: Whose effect on a sum is bounded.
      trust: ``"central"`` (the server adds all noise) or ``"distributed"``.
      clipping_norm: L2 bound on a unit's effect before rounding.
      noise_multiplier: The noise's standard deviation over the bound after rounding.
      grid: How contributions are brought to whole numbers.
      num_rounds: Sums of the whole run.
      num_clients: n, all that may take part in one sum.
      num_honest: h, of whom each adds 1/h of the noise; with trust central 1.
      sampling_rate: Of the units in each contribution, at a public Poisson rate.
      max_clients_per_entity: Clients at which one entity may have rows.
      num_regions: Sums of as many parts of the clients are seen, besides their total;
        h is of each part, and the guarantee is of all these sums side by side.

    Guarantees:
      With the noise of at least ``num_honest`` clients (or the server's) in it, a sum
      is as private as the continuous Gaussian of ``noise_multiplier`` makes it, to
      within 2^-64 in the logarithm of any chance in the whole run; noise beyond that,
      and contributions that are missing, cost no privacy. With a chance of at most
      2^-40, some coordinate of some sum wraps around, which costs accuracy only.

    Raises:
      PrivacyError: Neither holds; with the numbers, and the nearest that would do.
    """

    unit: Unit
    trust: Literal["central", "distributed"]
    clipping_norm: float
    noise_multiplier: float
    grid: FixedPoint
    num_rounds: int
    num_clients: int
    num_honest: int = 1
    sampling_rate: float = 1.0
    max_clients_per_entity: int = 1
    num_regions: int = 1

    def __post_init__(self) -> None:
        """Ranges; then a grid that is fine enough and a ring that is large enough."""
        validate.positive(
            clipping_norm=self.clipping_norm, noise_multiplier=self.noise_multiplier
        )
        validate.positive_integer(
            num_rounds=self.num_rounds,
            num_clients=self.num_clients,
            num_honest=self.num_honest,
            max_clients_per_entity=self.max_clients_per_entity,
            num_regions=self.num_regions,
        )
        validate.fraction(sampling_rate=self.sampling_rate)
        validate.one_of(("central", "distributed"), trust=self.trust)
        self._check_shares()
        self._check_distance()
        self._check_ring()

    @property
    def noise_variance(self) -> Fraction:
        """What the accountant counts on, on a sum, in squared grid units."""
        return self._variance_on(self.grid)

    @property
    def share_variance(self) -> Fraction:
        """The discrete Gaussian's sigma squared of each share."""
        return share_of(self.noise_variance, self.num_honest)

    @property
    def num_shares(self) -> int:
        """The most noises that are added to one sum."""
        return self.num_clients if self.trust == "distributed" else 1

    @property
    def log2_wrap_probability(self) -> float:
        """A bound on the chance that any coordinate wraps in the run, as a power of 2.

        All clients' noise included, and the server's with trust central.
        """
        return self._log2_wrap_on(self.grid)

    def mechanism(self, *details: tuple[str, Any]) -> Mechanism:
        """What the accountant reads; the rounded sensitivity is in the multiplier.

        Args:
          *details: Further ones, such as the noise's source.
        """
        variance = float(self.share_variance * self.num_honest)
        return Mechanism(
            name=f"{self.trust}_discrete_gaussian",
            unit=self.unit,
            trust=self.trust,
            clipping_norm=self.clipping_norm,
            noise_multiplier=self.noise_multiplier,
            noise_stddev_on_sum=math.sqrt(variance) * self._grid_unit,
            dp_event=self._event(),
            details=(*self._numbers(), *details),
        )

    def noised(self, encoded: Ring, source: WordSource) -> Ring:
        """``encoded`` plus one share of noise, modulo 2^32; in place.

        Args:
          encoded: A client's contribution, or with trust central the sum; uint32.
          source: Of the noise, for this contribution to this sum alone.
        """
        for start in range(0, len(encoded), _BLOCK):
            block = encoded[start : start + _BLOCK]
            noise = discrete_gaussian(
                len(block), variance=self.share_variance, source=source
            )
            block += noise.view(np.uint64).astype(np.uint32)
        return encoded

    @property
    def _num_sums(self) -> int:
        """Of the whole run, at every level."""
        levels = 1 + self.num_regions if self.num_regions > 1 else 1
        return self.num_rounds * levels

    @property
    def _grid_unit(self) -> float:
        return self.grid.grid(self.clipping_norm)

    def _variance_on(self, grid: FixedPoint) -> Fraction:
        exact = Fraction(self.noise_multiplier) ** 2 * grid.sensitivity_squared
        return exact + ROUNDING_VARIANCE

    def _log2_wrap_on(self, grid: FixedPoint) -> float:
        return log2_wrap_probability(
            num_clients=self.num_clients,
            num_shares=self.num_shares,
            largest=grid.largest_coordinate,
            share=share_of(self._variance_on(grid), self.num_honest),
            num_coordinates=self._num_sums * grid.num_weights,
        )

    def _distance_on(self, grid: FixedPoint) -> float:
        share = share_of(self._variance_on(grid), self.num_honest)
        one = distance_to_gaussian(share, self.num_honest)
        return one * grid.num_weights * self._num_sums

    def _event(self) -> Any:
        if self.unit == "client":
            return events.gaussian(self.noise_multiplier)
        return events.mixture(
            self.noise_multiplier, self.sampling_rate, self.max_clients_per_entity
        )

    def _numbers(self) -> tuple[tuple[str, Any], ...]:
        sampling = (
            ("sampling_rate", self.sampling_rate),
            ("max_clients_per_entity", self.max_clients_per_entity),
        )
        regions = ("num_regions", self.num_regions)
        return (
            *(() if self.unit == "client" else sampling),
            *((regions,) if self.num_regions > 1 else ()),
            ("num_clients", self.num_clients),
            ("num_honest", self.num_honest),
            ("share_stddev", math.sqrt(float(self.share_variance)) * self._grid_unit),
            ("num_weights", self.grid.num_weights),
            ("grid_bits", self.grid.grid_bits),
            ("sensitivity_squared", self.grid.sensitivity_squared),
            ("log2_wrap_probability", round(self.log2_wrap_probability, 1)),
        )

    def _check_shares(self) -> None:
        if self.trust == "central" and self.num_honest != 1:
            raise PrivacyError(
                f"num_honest is {self.num_honest} with trust = 'central', where the "
                "server alone adds the noise. Use 1, or trust = 'distributed'."
            )
        if self.trust == "central" and self.num_regions != 1:
            raise PrivacyError(
                f"num_regions is {self.num_regions} with trust = 'central': noise on "
                "the total is in no region's sum. Use 1, or trust = 'distributed'."
            )
        if self.num_honest * self.num_regions > self.num_clients:
            raise PrivacyError(
                f"num_honest is {self.num_honest}, but there are {self.num_clients} "
                f"clients in {self.num_regions} sums. Count on fewer honest ones, or "
                "enrol more."
            )

    def _check_distance(self) -> None:
        distance = self._distance_on(self.grid)
        if distance > MOST_DISTANCE:
            raise PrivacyError(
                f"A share of noise has a standard deviation of "
                f"{math.sqrt(self.share_variance):.3g} grid units, so that sums of "
                f"shares are not provably like Gaussian noise ({distance:.3g}, at most "
                f"{MOST_DISTANCE:.3g}). {self._finer_grid()}"
            )

    def _finer_grid(self) -> str:
        """The coarsest grid on which shares are wide enough, all else being equal."""
        for bits in range(self.grid.grid_bits + 1, MOST_GRID_BITS + 1):
            if self._distance_on(replace(self.grid, grid_bits=bits)) <= MOST_DISTANCE:
                return f"Use a finer grid: grid_bits = {bits}."
        return "No grid is fine enough: use more noise, or count on fewer honest ones."

    def _check_ring(self) -> None:
        if self.log2_wrap_probability <= MOST_LOG2_WRAP:
            return
        stddev = math.sqrt(self.share_variance * self.num_shares)
        raise PrivacyError(
            f"Sums of {self.num_clients} clients (coordinates up to "
            f"{self.grid.largest_coordinate}, noise of standard deviation "
            f"{stddev:.3g}, in grid units) would wrap around 2^32 somewhere in the run "
            f"with a chance of up to 2^{self.log2_wrap_probability:.0f}; allowed is "
            f"2^{MOST_LOG2_WRAP:.0f}. {self._way_out()}"
        )

    def _way_out(self) -> str:
        """The finest grid that fits, all else being equal."""
        for bits in range(self.grid.grid_bits - 1, 0, -1):
            coarser = replace(self.grid, grid_bits=bits)
            if self._log2_wrap_on(coarser) <= MOST_LOG2_WRAP:
                return f"Use grid_bits = {bits}."
        return "No grid fits: use fewer clients, or less noise."
