import numpy as np
import pytest

from fedtrain.core import seeds
from fedtrain.core.errors import BudgetExhaustedError, PrivacyError
from fedtrain.data.cohorts import full_participation
from fedtrain.privacy import accounting, events
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.paid_release import MeanQuery, paid_mean
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import RunPrivacy

SEED = seeds.root(2)


@pytest.fixture
def privacy(tmp_path):
    return RunPrivacy(
        plan=PrivacyPlan(
            unit="client",
            trust="central",
            neighboring_relation="add_or_remove_one",
            delta=1e-5,
            sampling="full",
            num_units=2000,
            num_clients=2000,
            num_rounds=5,
            expected_count=2000.0,
            clipping_norm=1.0,
            noise_multiplier=20.0,
            target_epsilon=1.0,
        ),
        mechanisms=gaussian_mechanism(
            clipping_norm=1.0, noise_multiplier=20.0
        ).mechanisms,
        sampler=full_participation(),
        ledger=Ledger(tmp_path / "ledger.jsonl"),
        run_id="run-1",
    )


def mean(privacy, values, name="accuracy", input_hash="h", **changes):
    asked = {"bound": 1.0, "noise_multiplier": 10.0, "expected_count": 2000.0}
    query = MeanQuery(name=name, **(asked | changes))
    return paid_mean(query, values, privacy=privacy, input_hash=input_hash, seed=SEED)


def test_a_noised_mean_is_close_and_paid_for_once(privacy):
    hits = (np.arange(2000) % 4 > 0).astype(float)
    value = mean(privacy, lambda: hits)
    # Noise sd 10 / 2000; 5 sd: false alarm below 1e-6.
    assert value == pytest.approx(0.75, abs=0.025)
    assert value != 0.75
    paid = accounting.epsilon(events.gaussian(10.0), 1e-5, "add_or_remove_one")
    assert privacy.spent() == pytest.approx(paid)
    assert mean(privacy, lambda: hits) == value
    assert privacy.spent() == pytest.approx(paid)


def test_values_beyond_the_bound_or_not_finite_have_a_bounded_effect(privacy):
    wild = mean(privacy, lambda: np.array([1e9, np.nan, np.inf, 1e9]))
    assert abs(wild) < 0.001 + 0.025


def test_other_values_never_meet_the_same_noise(privacy):
    ones, twos = (mean(privacy, lambda n=n: np.ones(n)) for n in (1, 2))
    assert twos - ones != pytest.approx(1 / 2000.0, rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{"noise_multiplier": 20.0}, {"bound": 2.0}, {"expected_count": 1000.0}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_query_is_charged_and_meets_other_noise(privacy, changes):
    # Of zeros, the noise alone is seen.
    first = mean(privacy, lambda: np.zeros(3)) * 2000.0 / 10.0
    once = privacy.spent()
    second = mean(privacy, lambda: np.zeros(3), **changes)
    asked = {"bound": 1.0, "noise_multiplier": 10.0, "expected_count": 2000.0} | changes
    scale = asked["bound"] * asked["noise_multiplier"] / asked["expected_count"]
    assert second / scale != pytest.approx(first, rel=1e-6)
    assert privacy.spent() > once


def test_other_input_is_charged_again(privacy):
    mean(privacy, lambda: np.ones(3))
    once = privacy.spent()
    mean(privacy, lambda: np.ones(3), input_hash="other")
    assert privacy.spent() > once


def test_nothing_is_read_beyond_the_budget(privacy):
    with pytest.raises(BudgetExhaustedError):
        mean(privacy, pytest.fail, "dear", noise_multiplier=1.0)
    assert privacy.spent() == 0.0


def test_names_pay_one_by_one(privacy):
    for name in ("loss", "accuracy"):
        mean(privacy, lambda: np.zeros(3), name)
    both = events.times(events.gaussian(10.0), 2)
    assert privacy.spent() == pytest.approx(
        accounting.epsilon(both, 1e-5, "add_or_remove_one")
    )


def test_local_trust_has_nobody_to_add_it_up(privacy):
    object.__setattr__(privacy.plan, "trust", "local")
    with pytest.raises(PrivacyError, match="public data"):
        mean(privacy, pytest.fail)
