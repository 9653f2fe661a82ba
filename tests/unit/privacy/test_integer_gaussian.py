import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import KeyStream
from fedtrain.privacy import accounting, events
from fedtrain.privacy.discrete_gaussian import discrete_gaussian
from fedtrain.privacy.integer_gaussian import IntegerGaussian

KEY = bytes(range(32))
NUM = 7
MECHANISM = IntegerGaussian(
    unit="client", clipping_norm=0.7, noise_multiplier=1.5, num_weights=NUM, grid_bits=8
)
ANYTHING = arrays.arrays(
    np.float64, NUM, elements=st.floats(allow_nan=True, allow_infinity=True)
)


def stream(*labels):
    return KeyStream(KEY, *labels)


def squared_length(integers):
    return sum(x * x for x in integers.tolist())


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_any_update_is_within_the_bound_that_the_noise_was_made_for(update):
    encoded = MECHANISM.encode(update, stream("round"))
    assert squared_length(encoded) <= MECHANISM.integer_norm_squared
    np.testing.assert_array_equal(MECHANISM.checked(encoded), encoded)


def test_rounding_that_lengthens_too_far_is_done_again():
    class Ones:
        def words(self, num):
            """Rounds every coordinate up, again and again."""
            return np.zeros(num, np.uint64)

    many = IntegerGaussian(
        unit="client",
        clipping_norm=1.0,
        noise_multiplier=1.0,
        num_weights=10_000,
        grid_bits=4,
    )
    update = np.full(10_000, 0.01)
    encoded = many.encode(update, Ones())
    assert not encoded.any()  # rounded towards zero at last
    ordinary = many.encode(update, stream("round"))
    assert 0 < squared_length(ordinary) <= many.integer_norm_squared


def test_rounding_is_unbiased():
    update = np.array([0.1, -0.2, 0.05, 0.0, 0.3, -0.01, 0.123])
    source = stream("round")
    encoded = [MECHANISM.decode(MECHANISM.encode(update, source)) for _ in range(4000)]
    # 5 standard errors of at most half a grid unit: once in a quarter million keys.
    tolerance = 5 * 0.5 * MECHANISM.grid / math.sqrt(4000)
    np.testing.assert_allclose(np.mean(encoded, axis=0), update, atol=tolerance)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_not_finite_counts_as_zero(bad):
    update = np.array([bad, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert not MECHANISM.encode(update, stream("round")).any()


def test_a_huge_update_is_clipped_to_its_direction():
    update = np.full(NUM, 1.7e308)
    decoded = MECHANISM.decode(MECHANISM.encode(update, stream("round")))
    np.testing.assert_allclose(decoded, 0.7 / math.sqrt(NUM), atol=MECHANISM.grid)


def test_the_sum_has_exact_discrete_noise_of_the_stated_variance():
    total = np.arange(NUM, dtype=np.int64)
    noised = MECHANISM.noised_sum(total, stream("noise"))
    variance = Fraction(3, 2) ** 2 * MECHANISM.integer_norm_squared
    assert variance <= MECHANISM.noise_variance < variance + Fraction(1, 1000)
    noise = discrete_gaussian(
        NUM, variance=MECHANISM.noise_variance, source=stream("noise")
    )
    np.testing.assert_array_equal(noised, total + noise)
    np.testing.assert_array_equal(MECHANISM.decode(noised), noised * 0.7 / 256)


def test_the_event_follows_from_the_rounded_sensitivity():
    stated = MECHANISM.mechanism()
    largest, variance = MECHANISM.integer_norm_squared, MECHANISM.noise_variance
    assert largest > 256**2
    exact = float(largest / (2 * variance))
    assert stated.dp_event == events.concentrated(0.5 / 1.5**2)
    assert exact <= stated.dp_event.rho
    assert stated.is_released
    assert stated.noise_stddev_on_sum > 1.5 * 0.7
    epsilon = accounting.epsilon(stated.dp_event, 1e-5, "add_or_remove_one")
    gaussian = accounting.rdp_epsilon(events.gaussian(1.5), 1e-5, "add_or_remove_one")
    assert epsilon == pytest.approx(gaussian, rel=0.01)


@pytest.mark.parametrize("grid_bits", [4, 16, 30])
@pytest.mark.parametrize("num_weights", [1, 1000, 10**9])
def test_the_bound_is_that_of_the_paper(num_weights, grid_bits):
    own = IntegerGaussian(
        unit="client",
        clipping_norm=1.0,
        noise_multiplier=1.0,
        num_weights=num_weights,
        grid_bits=grid_bits,
    )
    norm, root = 2.0**grid_bits, math.sqrt(num_weights)
    paper = min(norm**2 + num_weights / 4 + norm + root / 2, (norm + root) ** 2)
    assert paper <= own.integer_norm_squared <= paper + 2 * norm + 2 * root + 4


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        (np.zeros(NUM, np.int32), "int32"),
        (np.zeros(NUM + 1, np.int64), "int64"),
        (np.full(NUM, 200, np.int64), "longer"),
        (np.array([2**62] + [0] * (NUM - 1)), "longer"),
        (np.array([-(2**63)] + [0] * (NUM - 1)), "longer"),
    ],
)
def test_what_no_honest_client_sends_is_refused(encoded, why):
    with pytest.raises(ConfigError, match=why):
        MECHANISM.checked(encoded)


def test_too_fine_a_grid_is_refused():
    with pytest.raises(ConfigError, match="grid_bits"):
        IntegerGaussian(
            unit="client",
            clipping_norm=1.0,
            noise_multiplier=1.0,
            num_weights=1,
            grid_bits=31,
        )


def test_an_aggregator_needs_no_tensorflow_for_it():
    code = (
        "import sys, fedtrain.privacy.integer_gaussian, fedtrain.privacy.noise_key; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
