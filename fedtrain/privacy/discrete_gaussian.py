"""Exact draws from the discrete Gaussian, for noise on sums of whole numbers.

It gives the whole number x with chance proportional to exp(-x² / (2 σ²)). Added to a
sum of whole numbers it costs no more than the continuous Gaussian does: Canonne, Kamath
and Steinke (2020), The discrete Gaussian for differential privacy,
https://arxiv.org/abs/2004.00010, Theorem 4 (and 14, for vectors).

Timing: how long a batch of draws takes depends on how many proposals were refused and
on where a table was read, which depends on the values drawn. Whoever shares the
processor and can time single draws may learn something of the noise; whoever sees only
when a message leaves sees the sum over all coordinates of a round, to which one draw
adds nanoseconds. Nothing here runs in constant time.
"""

from fractions import Fraction

from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import WordSource
from fedtrain.privacy.staircase import Integers, Staircase, draws, staircase

# A step of the staircase is between 1/512 and 1/256 of a standard deviation wide.
_STEPS_BITS = 8
_LARGEST_BITS = 96


def discrete_gaussian(num: int, *, variance: Fraction, source: WordSource) -> Integers:
    """``num`` independent draws, int64 [num].

    Args:
      num: How many.
      variance: σ², a rational number above 0 (``Fraction`` or int, never a float), at
        most 2^96.
      source: A ``KeyStream``, whose words alone decide the draws.

    Guarantees:
      Exactly the discrete Gaussian if the words are uniform: no floating point, no
      truncated tail (``fedtrain.privacy.staircase`` says why).
    """
    return draws(_staircase(_checked(variance)), num, source)


def _checked(variance: Fraction) -> Fraction:
    if type(variance) not in (int, Fraction):
        raise ConfigError(
            f"variance must be a Fraction or a whole number, got {variance!r}. A float "
            "z is the fraction Fraction(z) exactly."
        )
    if not 0 < variance <= 1 << _LARGEST_BITS:
        raise ConfigError(f"variance must be above 0 and at most 2^96, got {variance}.")
    return Fraction(variance)


def _staircase(variance: Fraction) -> Staircase:
    bits = max((int(variance).bit_length() - 1) // 2 - _STEPS_BITS, 0)
    return staircase(Fraction(1 << 2 * bits) / variance, bits, is_continuous=False)
