import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import KeyStream
from fedtrain.privacy.discrete_gaussian import discrete_gaussian
from fedtrain.privacy.rounded_gaussian import rounded_gaussian

KEY = bytes(range(32))
# Each statistical test below raises a false alarm once in a million keys.
FALSE_ALARM = 1e-6
SIGMAS = [Fraction(1, 2), Fraction(1), Fraction(4), Fraction(64), Fraction(100, 3)]


def masses(sigma, reach):
    """The exact chances of -reach..reach, by definition."""
    values = np.arange(-reach, reach + 1)
    weights = [math.exp(-(x * x) / (2.0 * float(sigma) ** 2)) for x in values.tolist()]
    return values, np.array(weights) / math.fsum(weights)


def p_value(drawn, values, chances, least=10.0):
    """Chi-square with neighbouring cells pooled until each expects ``least``."""
    counts = np.bincount(drawn - values[0], minlength=len(values)).astype(float)
    expected = chances * len(drawn)
    cell = (np.cumsum(expected) / least).astype(int)
    observed, wanted = (np.bincount(cell, weights=x) for x in (counts, expected))
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    # What is pooled last may expect too little: it joins its neighbour.
    observed[-2] += observed[-1]
    wanted[-2] += wanted[-1]
    return stats.chisquare(observed[:-1], wanted[:-1] * len(drawn) / wanted[:-1].sum())[
        1
    ]


def check_against_the_masses(sigma, num):
    drawn = discrete_gaussian(num, variance=sigma**2, source=KeyStream(KEY, str(sigma)))
    values, chances = masses(sigma, int(12 * sigma) + 12)
    assert p_value(drawn, values, chances) > FALSE_ALARM


@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_draws_have_the_exact_chances(sigma):
    check_against_the_masses(sigma, 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", SIGMAS, ids=str)
def test_ten_million_draws_have_the_exact_chances(sigma):
    check_against_the_masses(sigma, 10_000_000)


def distance_p_value(drawn, stddev, shift):
    """Kolmogorov and Smirnov; the grid's own step is far below what it can see."""
    return stats.kstest((drawn + shift) / stddev, "norm").pvalue


def check_wide(num):
    stddev = 2**16
    drawn = discrete_gaussian(
        num, variance=Fraction(stddev) ** 2, source=KeyStream(KEY, "wide")
    )
    assert distance_p_value(drawn, stddev, 0.0) > FALSE_ALARM
    # Low bits of wide noise are uniform but for a difference of exp(-2 pi^2 2^16).
    counts = np.bincount(drawn & 255, minlength=256)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM


def test_wide_noise_is_distributed_as_it_should():
    check_wide(100_000)


@pytest.mark.slow
def test_ten_million_wide_draws_are_distributed_as_they_should():
    check_wide(10_000_000)


def test_rounded_noise_is_the_floor_of_the_gaussian():
    source = KeyStream(KEY, "rounded")
    narrow = rounded_gaussian(100_000, scale_bits=8, source=source)
    values = np.arange(-3000, 3000)
    cells = np.diff(stats.norm.cdf(np.arange(-3000, 3001) / 256.0))
    assert p_value(narrow, values, cells / cells.sum()) > FALSE_ALARM
    wide = rounded_gaussian(100_000, scale_bits=40, source=source)
    assert distance_p_value(wide, 2.0**40, 0.5) > FALSE_ALARM
    assert stats.chisquare(np.bincount(wide & 255)).pvalue > FALSE_ALARM


def test_opendp_agrees():
    """An independent sampler: two samples, one distribution."""
    dp = pytest.importorskip("opendp.prelude", reason="opendp is a dev dependency")
    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    measure = dp.l2_distance(T=float)
    theirs = dp.m.make_gaussian(domain, measure, scale=4.0)([0] * 20_000)
    ours = discrete_gaussian(20_000, variance=Fraction(16), source=KeyStream(KEY, "o"))
    cells = np.clip(np.stack([ours, theirs]), -14, 14) + 14
    counts = np.stack([np.bincount(row, minlength=29) for row in cells])
    assert stats.chi2_contingency(counts)[1] > FALSE_ALARM


@pytest.mark.parametrize("variance", [0.5, 0, -1, Fraction(2**97), True])
def test_unusable_variances_are_refused(variance):
    with pytest.raises(ConfigError, match="variance"):
        discrete_gaussian(1, variance=variance, source=KeyStream(KEY))


@pytest.mark.parametrize("scale_bits", [7, 57])
def test_unusable_scales_are_refused(scale_bits):
    with pytest.raises(ConfigError, match="scale_bits"):
        rounded_gaussian(1, scale_bits=scale_bits, source=KeyStream(KEY))
