import math

import numpy as np
import pytest

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy import accounting, events, rdp_bounds

ADD = "add_or_remove_one"


def discrete_pair(sigma, shift):
    """The chances of a discrete Gaussian, and of one moved by ``shift``."""
    reach = int(33 * sigma)  # further out, the chances vanish in float64
    values = np.arange(-reach, reach + shift)
    both = [np.exp(-((values - at) ** 2) / (2.0 * sigma**2)) for at in (0, shift)]
    return [weights / weights.sum() for weights in both]


def divergence(left, right, order):
    logs = order * np.log(left) - (order - 1) * np.log(right)
    return np.log(np.sum(np.exp(logs))) / (order - 1)


@pytest.mark.parametrize("order", [2, 3, 5, 16])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(("sigma", "shift"), [(0.7, 1), (3.0, 1), (3.0, 4)])
def test_the_bound_holds_for_the_sampled_discrete_gaussian(sigma, shift, rate, order):
    """Both directions, by summing over all values."""
    without, within = discrete_pair(sigma, shift)
    mixed = (1 - rate) * without + rate * within
    worst = max(divergence(mixed, without, order), divergence(without, mixed, order))
    bound = rdp_bounds._at_order(order, rate, 0.5 * (shift / sigma) ** 2)
    # At order 2 it is an equality, so both sides' rounding shows.
    assert worst <= bound * (1.0 + 1e-9) + 1e-12


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_unsampled_integer_noise_costs_what_zcdp_says(sigma):
    without, within = discrete_pair(sigma, 1)
    for order in (2, 7):
        exact = divergence(within, without, order)
        assert exact <= order * 0.5 / sigma**2 + 1e-12


def test_epsilon_is_close_to_the_continuous_one_and_never_below():
    event = events.times(events.concentrated(0.5 / 20.0**2), 50)
    gaussian = events.times(events.gaussian(20.0), 50)
    own = accounting.epsilon(event, 1e-5, ADD)
    assert accounting.epsilon(gaussian, 1e-5, ADD) < own
    assert own < 1.01 * accounting.rdp_epsilon(gaussian, 1e-5, ADD)
    assert accounting.zcdp_rho(event, ADD) == pytest.approx(50 * 0.5 / 400)


def test_sampling_amplifies_less_than_is_known_of_the_continuous_gaussian():
    def epsilon(leaf):
        event = events.times(events.sampled(0.01, leaf), 100)
        return accounting.epsilon(event, 1e-5, ADD)

    integer = epsilon(events.concentrated(0.5 / 4.0))
    assert epsilon(events.gaussian(2.0)) < integer
    assert integer < 0.2 * accounting.epsilon(
        events.times(events.concentrated(0.5 / 4.0), 100), 1e-5, ADD
    )


def test_replacing_one_costs_twice_the_distance():
    once, four = (events.concentrated(rho) for rho in (0.1, 0.4))
    replaced = accounting.epsilon(once, 1e-5, "replace_one")
    assert replaced == accounting.epsilon(four, 1e-5, ADD)
    with pytest.raises(PrivacyError, match="Poisson-sampled"):
        accounting.epsilon(events.sampled(0.1, once), 1e-5, "replace_one")


def test_who_proves_an_epsilon_is_named():
    integer = events.sampled(0.1, events.concentrated(0.1))
    assert "zCDP" in accounting.accountant(integer)
    assert accounting.accountant(events.gaussian(1.0)) == accounting.ACCOUNTANT


def test_what_has_no_bound_beside_integer_noise_is_not_private():
    joined = events.composed([events.concentrated(0.1), events.gaussian(0.0)])
    assert accounting.epsilon(joined, 1e-5, ADD) == math.inf


def test_events_of_integer_noise_are_stored_and_read():
    counts = events.counted(
        events.composed(
            [
                events.times(events.sampled(0.1, events.concentrated(0.2)), 3),
                events.concentrated(0.3),
            ]
        )
    )
    assert events.from_json(events.to_json(counts)) == counts
