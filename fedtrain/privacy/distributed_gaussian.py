"""Integer noise in shares: what their sum is worth, and whether it fits the ring.

Each client adds exact discrete Gaussian noise of a share of the needed variance. Such a
sum is no discrete Gaussian, but so close to one, and that to a Gaussian that was
rounded at random, that epsilon is the continuous Gaussian's by any accountant.

Source: Kairouz, Liu and Steinke (2021), The distributed discrete Gaussian mechanism,
https://arxiv.org/abs/2102.06387, Theorem 11 (sums); Peikert (2010), An efficient and
parallel Gaussian sampler for lattices, https://eprint.iacr.org/2010/088, Theorem 3.1
(rounding); Canonne, Kamath and Steinke (2020), https://arxiv.org/abs/2004.00010,
Corollary 17 (tails). docs/concepts/guarantees.md has the proof.
"""

import math
from fractions import Fraction

from fedtrain.aggregation.fixed_point import RING_BITS

# Of the Gaussian that rounds a continuous one; it costs so much variance, in squared
# grid units, and what it leaves open is below exp(-300).
ROUNDING_VARIANCE = 16
# All releases of a run together may be so far from the ideal ones, in logarithms.
MOST_DISTANCE = 2.0**-64
MOST_LOG2_WRAP = -40.0


def share_of(variance: Fraction, num_shares: int) -> Fraction:
    """A share's variance, rounded up to a multiple of 2^-20."""
    return Fraction(math.ceil(variance / num_shares * 2**20), 2**20)


def distance_to_gaussian(
    share: Fraction, num_shares: int, *, rounding_variance: float = ROUNDING_VARIANCE
) -> float:
    """How far a coordinate's noise may be from a rounded Gaussian of its variance.

    Args:
      share: The variance of each of the discrete Gaussians that are added up.
      num_shares: How many.
      rounding_variance: Part of the sum's variance that is left to the rounding.

    Returns:
      A bound on the magnitude of the logarithm of the ratio of the chances of any whole
      number, under the sum, and under a Gaussian of the sum's variance less
      ``rounding_variance`` that is rounded by a discrete Gaussian of that variance.
    """
    sums = sum(_distance(float(share) * k / (k + 1)) for k in range(1, num_shares))
    return sums + _distance(rounding_variance)


def log2_wrap_probability(
    *,
    num_clients: int,
    num_shares: int,
    largest: int,
    share: Fraction,
    num_coordinates: int,
    ring_bits: int = RING_BITS,
) -> float:
    """A bound on the chance that any coordinate leaves the ring, as a power of two.

    Args:
      num_clients: All that may add a contribution to one sum.
      num_shares: As many noises as may be in it.
      largest: Of a contribution's coordinates, in magnitude.
      share: The variance of one of them.
      num_coordinates: Of all sums of the whole run together.
      ring_bits: The ring has 2^ring_bits elements.
    """
    room = (1 << (ring_bits - 1)) - num_clients * largest
    if room <= 0:
        return 0.0
    exponent = math.log(2.0) + math.log(num_coordinates)
    exponent -= room * (room / (2.0 * num_shares * float(share)))
    return min(exponent / math.log(2.0), 0.0)


def _distance(variance: float) -> float:
    """log((1 + e) / (1 - e)), for the e of Poisson's summation formula.

    The sum of the Gaussian's shape over the integers, shifted or not, is its integral
    but for a factor between 1 - e and 1 + e.
    """
    exponent = 2.0 * math.pi**2 * variance
    error = 2.0 * math.exp(-exponent) / -math.expm1(-exponent)
    return math.inf if error >= 1.0 else math.log1p(error) - math.log1p(-error)
