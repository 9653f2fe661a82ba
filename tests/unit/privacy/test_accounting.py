import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.privacy import accounting, events


@given(
    noise_multiplier=st.floats(0.01, 1000.0),
    delta=st.floats(1e-12, 0.1),
    times=st.integers(1, 10_000),
)
def test_gaussian_epsilon_is_that_of_dp_accounting(noise_multiplier, delta, times):
    event = events.times(events.gaussian(noise_multiplier), times)
    sigma = noise_multiplier / times**0.5
    expected = dp_accounting.get_epsilon_gaussian(sigma, delta)
    actual = accounting.epsilon(event, delta, "add_or_remove_one")
    assert actual == pytest.approx(expected, rel=1e-7, abs=1e-9)
