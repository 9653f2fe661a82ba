import dp_accounting
import pytest

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.plan_table import plan_table

EXAMPLE = {
    "unit": "example",
    "trust": "local",
    "neighboring_relation": "add_or_remove_one",
    "delta": 1e-4,
    "sampling": "poisson",
    "num_units": 1500,
    "num_clients": 20,
    "num_rounds": 20,
    "expected_count": 15.0,
    "clipping_norm": 1.0,
    "noise_multiplier": 1.0,
    "sampling_rate": 0.2,
    "local_steps": 2,
    "num_weights": 650,
}
CLIENT = EXAMPLE | {
    "unit": "client",
    "trust": "central",
    "num_clients": 5000,
    "num_units": 5000,
    "delta": 1e-5,
    "expected_count": 1000.0,
    "local_steps": 5,
    "cohort_is_hidden": True,
}


def example_plan(**changes):
    return PrivacyPlan(**(EXAMPLE | changes))


def client_plan(**changes):
    return PrivacyPlan(**(CLIENT | changes))


@pytest.mark.parametrize(
    "name", ["unit", "trust", "neighboring_relation", "delta", "sampling"]
)
def test_what_a_promise_means_has_no_default(name):
    with pytest.raises(TypeError, match=name):
        PrivacyPlan(**{key: value for key, value in EXAMPLE.items() if key != name})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 1 / 1500}, "delta is 0.000666667, but must be below 1 / 1500"),
        ({"trust": "distributed"}, "secure aggregation"),
        ({"trust": "central"}, "trust = 'local'"),
        ({"unit": "client"}, "trust = 'central'"),
        ({"neighboring_relation": "replace_one"}, "no proof"),
        ({"sampling": "full"}, "only Poisson sampling has a rate"),
        ({"sampling": "uniform", "sampling_rate": 1.0}, "sampling must be one of"),
        ({"noise_multiplier": None}, "noise_multiplier or target_epsilon"),
        ({"noise_multiplier": 0.0}, "noise_multiplier must be a number above 0"),
    ],
)
def test_what_cannot_be_promised_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        example_plan(**changes)


def test_uniform_clients_cannot_claim_a_rate():
    with pytest.raises(PrivacyError, match="only Poisson sampling has a rate"):
        client_plan(sampling="uniform")


def test_few_clients_need_to_accept_weak_privacy_and_see_its_cost():
    few = {"num_clients": 10, "num_units": 10, "sampling": "full", "num_rounds": 50}
    few |= {"sampling_rate": 1.0, "expected_count": 10.0, "num_weights": 100_000}
    with pytest.raises(PrivacyError, match="accept_weak_privacy") as error:
        client_plan(**few)
    least = dp_accounting.get_sigma_gaussian(4.0, 1e-5) * 50**0.5
    assert least == pytest.approx(7.645, abs=0.001)
    assert "epsilon 4: noise multiplier 7.65" in str(error.value)
    assert client_plan(**few, accept_weak_privacy=True).epsilon() > 50


def test_clients_amplify_only_in_secret():
    hidden, seen = client_plan(), client_plan(cohort_is_hidden=False)
    assert hidden.amplifies
    assert not seen.amplifies
    assert seen.epsilon() > 3 * hidden.epsilon()


def test_seen_clients_pay_for_the_rounds_they_are_in():
    often, seldom = (
        client_plan(cohort_is_hidden=False, max_participations=most) for most in (20, 5)
    )
    assert seldom.epsilon() < 0.6 * often.epsilon()
    hidden = client_plan(max_participations=5)
    assert hidden.epsilon() == client_plan().epsilon()


def test_local_work_within_a_client_counts_once_for_the_client():
    assert client_plan(local_steps=5).epsilon() == client_plan(local_steps=1).epsilon()
    assert example_plan(local_steps=4).epsilon() > example_plan().epsilon()


def test_customer_of_two_banks_pays_twice():
    one, two = (
        example_plan(unit="entity", max_clients_per_entity=most) for most in (1, 2)
    )
    assert two.epsilon() == example_plan(local_steps=4).epsilon() > one.epsilon()
    central = {"trust": "central", "unit": "entity", "local_steps": 1}
    one, two = (example_plan(**central, max_clients_per_entity=most) for most in (1, 2))
    assert two.epsilon() > 1.5 * one.epsilon()


def test_each_of_the_four_is_solved_for():
    plan = example_plan()
    spent = plan.solved("epsilon").target_epsilon
    assert spent == plan.epsilon()
    noise = plan.solved("noise_multiplier", target_epsilon=spent).noise_multiplier
    assert noise == pytest.approx(1.0, rel=0.01)
    assert plan.solved("num_rounds", target_epsilon=spent * 1.002).num_rounds == 20
    wider = plan.solved("sampling_rate", target_epsilon=2.0 * spent)
    assert wider.sampling_rate > 0.3
    assert wider.epsilon() <= 2.0 * spent
    assert wider.expected_count == pytest.approx(75.0 * wider.sampling_rate)


def test_calibrated_noise_keeps_the_target_and_wastes_little():
    plan = example_plan(noise_multiplier=None, target_epsilon=8.0).calibrated()
    assert 7.9 < plan.epsilon() <= 8.0
    assert plan.rdp_epsilon() > plan.epsilon()


def test_table_shows_the_plan_and_its_alternatives():
    rows = plan_table(example_plan(noise_multiplier=None, target_epsilon=4.0))
    own, *by_epsilon = rows[:5]
    noise = [row.noise_multiplier for row in by_epsilon]
    assert noise == sorted(noise, reverse=True)
    assert own.noise_multiplier == pytest.approx(noise[2])
    assert own.signal_to_noise == pytest.approx(
        15.0 / (own.noise_multiplier * 650**0.5)
    )
    assert rows[5].noise_multiplier < own.noise_multiplier < rows[6].noise_multiplier


def test_budget_keeps_room_for_releases_besides_the_rounds():
    changes = {"noise_multiplier": None, "target_epsilon": 4.0}
    alone, with_scores = (
        example_plan(reserved=reserved, **changes).calibrated()
        for reserved in ((), (6.0, 6.0))
    )
    assert with_scores.noise_multiplier > alone.noise_multiplier
    assert 3.9 < with_scores.epsilon() <= 4.0
    rounds = example_plan(noise_multiplier=with_scores.noise_multiplier)
    assert rounds.epsilon() < 3.9
