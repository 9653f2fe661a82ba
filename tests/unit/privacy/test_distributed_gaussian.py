import math
from fractions import Fraction

import numpy as np
import pytest

from fedtrain.privacy.distributed_gaussian import (
    distance_to_gaussian,
    log2_wrap_probability,
    share_of,
)

REACH = 60
VALUES = np.arange(-REACH, REACH + 1)


def masses(variance):
    """The discrete Gaussian's exact chances, by definition."""
    weights = np.exp(-(VALUES**2) / (2.0 * variance))
    return weights / weights.sum()


def summed(part, num):
    total = part
    for _ in range(num - 1):
        total = np.convolve(total, part)
    return total


def rounded_gaussian(variance, rounding):
    """Chances of a Gaussian rounded by a discrete one, integrated numerically."""
    places, step = np.linspace(-30.0, 30.0, 24_001, retstep=True)
    density = np.exp(-(places**2) / (2.0 * variance))
    density /= density.sum() * step
    kernel = np.exp(-((VALUES[:, None] - places) ** 2) / (2.0 * rounding))
    return (kernel / kernel.sum(axis=0) * density).sum(axis=1) * step


@pytest.mark.parametrize(
    ("share", "num", "rounding"), [(0.5, 3, 0.3), (1.0, 2, 0.25), (0.7, 5, 0.4)]
)
def test_a_sum_of_shares_is_as_close_to_a_rounded_gaussian_as_is_said(
    share, num, rounding
):
    total = summed(masses(share), num)
    middle = len(total) // 2
    near = slice(REACH - 8, REACH + 9)
    actual = total[middle - 8 : middle + 9]
    ideal = rounded_gaussian(share * num - rounding, rounding)[near]
    distance = float(np.max(np.abs(np.log(actual / ideal))))
    bound = distance_to_gaussian(Fraction(share), num, rounding_variance=rounding)
    assert distance <= bound * (1.0 + 1e-9)
    assert distance >= bound / 100.0  # the bound says something
    # More of the sum's variance left to the rounding, or larger shares: closer.
    assert distance_to_gaussian(Fraction(share), num, rounding_variance=2.0) < bound
    assert distance_to_gaussian(Fraction(9), num) < 1e-30


def test_too_narrow_shares_are_infinitely_far():
    assert math.isinf(distance_to_gaussian(Fraction(1, 100), 2))


def test_shares_add_up_to_no_less_than_the_variance():
    variance = Fraction(10, 7)
    assert variance <= 3 * share_of(variance, 3) < variance + Fraction(1, 10**5)


@pytest.mark.parametrize(("largest", "share"), [(4, 9.0), (2, 16.0), (9, 2.0)])
def test_wraps_of_a_small_ring_are_counted_by_brute_force(largest, share):
    num = 3
    total = summed(masses(share), num)
    sums = np.arange(len(total)) - len(total) // 2 + num * largest
    wraps = float(total[(sums > 31) | (sums < -32)].sum())
    several = 1.0 - (1.0 - wraps) ** 10
    bound = log2_wrap_probability(
        num_clients=num,
        num_shares=num,
        largest=largest,
        share=Fraction(share),
        num_coordinates=10,
        ring_bits=6,
    )
    assert several <= 2.0**bound
    assert several >= 2.0**bound / 1000.0


def test_contributions_that_fill_the_ring_wrap():
    chance = log2_wrap_probability(
        num_clients=2,
        num_shares=2,
        largest=2**30,
        share=Fraction(1),
        num_coordinates=1,
    )
    assert chance == 0.0
