"""Published and recomputed figures that the accounting must give (design: oracles)."""

import math
import time

import dp_accounting as dpa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy import accounting, events

ADD_REMOVE = "add_or_remove_one"


def steps(noise_multiplier, sampling_rate, num_steps):
    event = events.sampled(sampling_rate, events.gaussian(noise_multiplier))
    return events.times(event, num_steps)


def both(event, delta, relation=ADD_REMOVE):
    pld = accounting.epsilon(event, delta, relation)
    return pld, accounting.rdp_epsilon(event, delta, relation)


def test_claiming_amplification_is_what_separates_7_from_92():
    claimed = both(steps(1.0, 0.1, 100), 1e-5)
    without = both(steps(1.0, 1.0, 100), 1e-5)
    assert claimed == pytest.approx((7.05, 7.90), abs=0.005)
    assert without == pytest.approx((91.8, 96.1), abs=0.05)


@pytest.mark.parametrize(
    ("noise_multiplier", "epochs", "pld", "rdp"),
    [(1.3, 15, 0.864, 0.954), (1.1, 60, 2.382, 2.597), (0.7, 45, 5.639, 6.319)],
)
def test_tf_privacy_tutorial_settings(noise_multiplier, epochs, pld, rdp):
    event = steps(noise_multiplier, 256 / 60_000, epochs * 60_000 // 256)
    assert both(event, 1e-5) == pytest.approx((pld, rdp), abs=0.001)


@pytest.mark.parametrize(
    ("noise_multiplier", "pld", "rdp"),
    [(2.238, 0.92, 1.0), (1.334, 1.85, 2.0), (0.920, 3.61, 4.0), (0.707, 7.12, 8.0)],
)
def test_hundred_thousand_records(noise_multiplier, pld, rdp):
    event = steps(noise_multiplier, 1024 / 1e5, 2000)
    actual = both(event, 1e-6)
    assert actual[0] == pytest.approx(pld, abs=0.0051)
    assert actual[1] == pytest.approx(rdp, rel=0.002)


@pytest.mark.parametrize(("rho", "expected"), [(0.1507, 3.4240), (0.81, 8.549)])
def test_production_figures_of_banded_matrix_factorisation(rho, expected):
    event = events.gaussian(1.0 / math.sqrt(2.0 * rho))
    actual = accounting.epsilon(event, 1e-10, ADD_REMOVE)
    assert actual == pytest.approx(expected, abs=0.0005)
    assert accounting.zcdp_rho(event, ADD_REMOVE) == pytest.approx(rho)


@pytest.mark.parametrize(
    ("noise_multiplier", "rdp", "pld"),
    [(15.2, 2, 1.84), (8.2, 4, 3.69), (4.5, 8, 7.46)],
)
def test_fifty_rounds_with_everyone_taking_part(noise_multiplier, rdp, pld):
    actual = both(steps(noise_multiplier, 1.0, 50), 1e-5)
    assert actual[0] == pytest.approx(pld, abs=0.01)
    assert actual[1] == pytest.approx(rdp, rel=0.02)


def test_replacing_one_costs_three_times_adding_one():
    event = steps(1.0, 1.0, 50)
    assert accounting.epsilon(event, 1e-5, ADD_REMOVE) == pytest.approx(54.4, abs=0.05)
    replaced, cross_check = both(event, 1e-5, "replace_one")
    assert replaced == pytest.approx(159.4, abs=0.05)
    assert replaced <= cross_check


def test_closed_form_agrees_with_dp_accountings_pld():
    accountant = dpa.pld.PLDAccountant().compose(dpa.GaussianDpEvent(2.0), 9)
    actual = accounting.epsilon(steps(2.0, 1.0, 9), 1e-6, ADD_REMOVE)
    assert actual == pytest.approx(accountant.get_epsilon(1e-6), abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.8, 5.0), st.sampled_from([0.01, 0.2, 1.0]), st.integers(1, 300))
def test_headline_is_below_its_cross_check(noise_multiplier, rate, num_steps):
    event = steps(noise_multiplier, rate, num_steps)
    quick = accounting.epsilon(event, 1e-5, ADD_REMOVE, interval=accounting.QUICK)
    cross_check = accounting.rdp_epsilon(event, 1e-5, ADD_REMOVE)
    assert quick <= cross_check * 1.001 + 1e-3


def test_sampling_is_not_amplified_under_replace_one():
    with pytest.raises(PrivacyError, match="no proof"):
        accounting.epsilon(steps(1.0, 0.1, 10), 1e-5, "replace_one")


def test_several_clients_of_one_entity_lie_between_one_and_the_sum():
    one, two = (
        accounting.epsilon(
            events.times(events.mixture(2.0, 0.1, copies), 50), 1e-5, ADD_REMOVE
        )
        for copies in (1, 2)
    )
    halved_noise = accounting.epsilon(steps(1.0, 0.19, 50), 1e-5, ADD_REMOVE)
    assert 1.3 * one < two < halved_noise


def test_without_noise_epsilon_is_infinite():
    assert accounting.epsilon(steps(0.0, 0.1, 1), 1e-5, ADD_REMOVE) == math.inf


def test_next_round_costs_a_progress_bar_little_time():
    accounting.epsilon(steps(1.3, 0.05, 99), 1e-5, ADD_REMOVE, interval=1e-3)
    started = time.process_time()
    for number in range(100, 110):
        accounting.epsilon(steps(1.3, 0.05, number), 1e-5, ADD_REMOVE, interval=1e-3)
    assert time.process_time() - started < 10 * 0.05


def test_events_survive_their_json():
    counts = events.counted(
        dpa.ComposedDpEvent(
            [steps(1.0, 0.1, 3), steps(2.0, 1.0, 4), events.mixture(1.0, 0.5, 2)]
        )
    )
    assert events.from_json(events.to_json(counts)) == counts


def test_queries_on_one_sample_are_one_gaussian():
    joint = dpa.ComposedDpEvent([dpa.GaussianDpEvent(2.0), dpa.GaussianDpEvent(2.0)])
    (leaf,) = events.counted(dpa.PoissonSampledDpEvent(0.1, joint))
    assert leaf.event.noise_multiplier == pytest.approx(2.0 / math.sqrt(2.0))
