"""The Gaussian rounded down to a grid, drawn exactly: noise for local training.

A sum of whole numbers plus floor(N) is the floor of that sum plus N: it is computed
from the sum under continuous Gaussian noise, and so is every bit as private. All that
is proved of the Gaussian mechanism (its privacy loss distribution, Poisson sampling)
therefore holds, without the ideal real number ever being written down.

Source: Karney (2016), Sampling exactly from the normal distribution,
https://arxiv.org/abs/1303.6257; Dwork and Roth (2014), Proposition 2.1
(post-processing).
"""

from fractions import Fraction

from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import WordSource
from fedtrain.privacy.staircase import Integers, draws, staircase

# A step of the staircase is 1/256 of a standard deviation wide.
_STEPS_BITS = 8
_MOST_BITS = 56


def rounded_gaussian(num: int, *, scale_bits: int, source: WordSource) -> Integers:
    """``num`` independent draws of floor(2^scale_bits N(0, 1)), int64 [num].

    Args:
      num: How many.
      scale_bits: The standard deviation is 2^scale_bits grid units; 8 to 56.
      source: A ``KeyStream``, whose words alone decide the draws.

    Guarantees:
      Exact if the words are uniform, as ``fedtrain.privacy.staircase`` says. The mean
      is half a grid unit below zero, which is public.
    """
    if not _STEPS_BITS <= scale_bits <= _MOST_BITS:
        raise ConfigError(f"scale_bits must be from 8 to 56, got {scale_bits!r}.")
    ratio = Fraction(1, 1 << 2 * _STEPS_BITS)
    stairs = staircase(ratio, scale_bits - _STEPS_BITS, is_continuous=True)
    return draws(stairs, num, source)
