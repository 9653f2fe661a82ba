import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fedtrain.aggregation.fixed_point import FixedPoint, from_ring
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.core.keystream import KeyStream
from fedtrain.privacy import accounting, events
from fedtrain.privacy.discrete_gaussian import discrete_gaussian
from fedtrain.privacy.integer_gaussian import IntegerGaussian

NUM = 70_000
GRID = FixedPoint(num_weights=NUM)
SUMS = replace(GRID, bounded="unit", largest=2**30 // 10)
SHARES = IntegerGaussian(
    unit="client",
    trust="distributed",
    clipping_norm=0.7,
    noise_multiplier=1.5,
    grid=GRID,
    num_rounds=100,
    num_clients=10,
    num_honest=6,
)
CENTRAL = replace(SHARES, trust="central", num_honest=1)


def stream(*labels):
    return KeyStream(bytes(range(32)), *labels)


def test_a_share_of_exact_noise_is_added_modulo_the_ring():
    start = np.full(NUM, 2**32 - 1, np.uint32)
    noised = SHARES.noised(start.copy(), stream("noise"))
    source, variance = stream("noise"), SHARES.share_variance
    expected = [  # block by block, as the words are used
        discrete_gaussian(size, variance=variance, source=source)
        for size in (65_536, NUM - 65_536)
    ]
    np.testing.assert_array_equal(from_ring(noised), np.concatenate(expected) - 1)
    # Relative sd of a variance of NUM draws: sqrt(2 / NUM). Five: once in a million.
    spread = float(np.var(from_ring(noised).astype(float)))
    limit = 5.0 * math.sqrt(2.0 / NUM)
    assert spread == pytest.approx(float(SHARES.share_variance), rel=limit)


def test_honest_shares_add_up_to_what_the_accountant_counts_on():
    exact = Fraction(3, 2) ** 2 * GRID.sensitivity_squared
    assert exact < SHARES.noise_variance <= 6 * SHARES.share_variance
    assert CENTRAL.share_variance == pytest.approx(float(exact), rel=1e-8)
    own = SHARES.mechanism()
    assert own.noise_stddev_on_sum > 1.5 * 0.7
    assert own.noise_stddev_on_sum == pytest.approx(1.5 * 0.7, rel=0.01)
    assert dict(own.details)["share_stddev"] == pytest.approx(
        own.noise_stddev_on_sum / math.sqrt(6), rel=1e-6
    )
    assert (own.trust, own.is_released) == ("distributed", False)
    assert CENTRAL.mechanism(("noise_source", "cryptographic")).is_released


def test_epsilon_is_that_of_the_gaussian_and_never_below():
    assert SHARES.mechanism().dp_event == events.gaussian(1.5)
    rows = replace(SHARES, unit="example", sampling_rate=0.01, grid=SUMS)
    assert rows.mechanism().dp_event == events.sampled(0.01, events.gaussian(1.5))
    # Float noise of the very same spread on the same sum is worth no less.
    for one in (SHARES, rows):
        own = one.mechanism()
        float_event = events.gaussian(own.noise_stddev_on_sum / own.clipping_norm)
        integer, central = (
            accounting.epsilon(event, 1e-5, "add_or_remove_one")
            for event in (events.gaussian(1.5), float_event)
        )
        assert central < integer < 1.02 * central


def test_noise_or_clients_that_the_ring_cannot_hold_are_refused():
    assert SHARES.log2_wrap_probability < -1e5
    with pytest.raises(PrivacyError, match=r"chance of up to 2\^0.*grid_bits = 26"):
        replace(SHARES, grid=replace(GRID, grid_bits=28))
    fits = replace(SHARES, grid=replace(GRID, grid_bits=26))
    assert fits.log2_wrap_probability <= -40
    with pytest.raises(PrivacyError, match="fewer clients, or less noise"):
        replace(SHARES, noise_multiplier=1e9)


def test_every_regional_sum_and_the_total_count_for_wraps():
    whole = replace(SHARES, num_honest=3, num_rounds=300)
    regions = replace(whole, num_rounds=100, num_regions=2)
    assert regions.log2_wrap_probability == whole.log2_wrap_probability
    assert dict(regions.mechanism().details)["num_regions"] == 2
    assert "num_regions" not in dict(whole.mechanism().details)


def test_shares_too_small_for_their_grid_are_refused():
    with pytest.raises(PrivacyError, match=r"finer grid: grid_bits = 19\."):
        replace(SHARES, noise_multiplier=1e-5)
    replace(SHARES, noise_multiplier=1e-5, grid=replace(GRID, grid_bits=19))
    with pytest.raises(PrivacyError, match="No grid is fine enough"):
        replace(SHARES, noise_multiplier=1e-9)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trust": "central"}, "the server alone"),
        (
            {"trust": "central", "num_honest": 1, "num_regions": 3},
            "in no region's sum",
        ),
        ({"num_honest": 11}, "enrol more"),
        ({"num_regions": 2}, "10 clients in 2 sums"),
        ({"trust": "local"}, "trust"),
        ({"sampling_rate": 0.0}, "sampling_rate"),
    ],
    ids=str,
)
def test_unusable_numbers_are_refused(change, why):
    with pytest.raises(ConfigError, match=why):
        replace(SHARES, **change)


def test_an_aggregator_needs_no_tensorflow_for_it():
    code = (
        "import sys, fedtrain.privacy.integer_gaussian, fedtrain.privacy.noise_key; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
