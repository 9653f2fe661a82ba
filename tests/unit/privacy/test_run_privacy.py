from dataclasses import replace

import pytest

from fedtrain.core.errors import BudgetExhaustedError, LedgerError, PrivacyError
from fedtrain.data.cohorts import (
    cyclic_sampler,
    full_participation,
    poisson_sampler,
    uniform_sampler,
)
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy import accounting, events
from fedtrain.privacy.correlated_noise import banded_mechanism
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.participation import Participation
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import Later, RunPrivacy

PLAN = {
    "unit": "example",
    "trust": "local",
    "neighboring_relation": "add_or_remove_one",
    "delta": 1e-4,
    "sampling": "poisson",
    "num_units": 1500,
    "num_clients": 20,
    "num_rounds": 10,
    "expected_count": 15.0,
    "clipping_norm": 1.0,
    "noise_multiplier": 1.0,
    "sampling_rate": 0.2,
    "local_steps": 2,
}
CLIENT_PLAN = PLAN | {
    "unit": "client",
    "trust": "central",
    "num_clients": 5000,
    "num_units": 5000,
    "sampling_rate": 0.1,
    "cohort_is_hidden": True,
}


def local_mechanisms(**changes):
    values = {"clipping_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.2}
    values |= {"local_steps": 2, "expected_batch_size": 15.0} | changes
    return dp_sgd(dense_classifier(3, 2), sgd(1.0), **values).mechanisms


@pytest.fixture
def run(tmp_path):
    def build(plan=PLAN, mechanisms=None, sampler=None, **changes):
        return RunPrivacy(
            plan=PrivacyPlan(**(plan | changes)),
            mechanisms=mechanisms or local_mechanisms(),
            sampler=sampler or uniform_sampler(cohort_size=2),
            ledger=Ledger(tmp_path / "ledger.jsonl"),
            run_id="run-1",
        )

    return build


def client_run(run, sampler=None, **changes):
    return run(
        CLIENT_PLAN,
        gaussian_mechanism(clipping_norm=1.0, noise_multiplier=1.0).mechanisms,
        sampler or poisson_sampler(sampling_rate=0.1, cohort_is_hidden=True),
        **changes,
    )


def test_a_client_pays_for_its_own_rounds_and_the_largest_is_shown(run):
    privacy = run()
    one = privacy.before_round(0, ["ada", "bob"], "h0")
    assert privacy.before_round(1, ["cleo", "dan"], "h1") == one
    two = privacy.before_round(2, ["ada", "dan"], "h2")
    assert two > one
    expected = events.times(events.sampled(0.2, events.gaussian(1.0)), 4)
    assert privacy.spent() == pytest.approx(
        accounting.epsilon(expected, 1e-4, "add_or_remove_one")
    )


def test_the_whole_plan_costs_what_was_planned(run):
    privacy = run(sampler=full_participation())
    for number in range(10):
        privacy.before_round(number, ["ada", "bob"], f"h{number}")
    assert privacy.spent() == pytest.approx(privacy.plan.epsilon())


def test_a_retried_round_is_charged_once_and_other_input_again(run):
    privacy = run()
    first = privacy.before_round(0, ["ada"], "h0")
    assert run().before_round(0, ["ada"], "h0") == first
    assert privacy.before_round(0, ["ada"], "other") > first


def test_a_round_redone_with_other_mechanisms_is_charged_again(run):
    once = run().before_round(0, ["ada"], "h0")
    assert run().before_round(0, ["ada"], "h0") == once
    # More noise, so the plan is kept; the same event, so only the digest differs.
    quiet = local_mechanisms(noise_multiplier=4.0)
    wide = local_mechanisms(clipping_norm=2.0)
    assert run(mechanisms=quiet).before_round(0, ["ada"], "h0") > once
    assert run(mechanisms=wide).before_round(0, ["ada"], "h0") > once
    assert run().head()["length"] == 3


def test_a_higher_budget_does_not_charge_a_retried_round_again(run):
    once = run().before_round(0, ["ada"], "h0")
    assert run(target_epsilon=50.0).before_round(0, ["ada"], "h0") == once
    assert run(expected_count=30.0).before_round(0, ["ada"], "h0") > once


def test_the_budget_stops_the_run_before_anything_is_written(run):
    privacy = run(target_epsilon=PrivacyPlan(**PLAN).with_rounds(3).epsilon() * 1.001)
    for number in range(3):
        privacy.before_round(number, ["ada"], f"h{number}")
    head, size = privacy.head(), privacy.ledger.path.stat().st_size
    with pytest.raises(BudgetExhaustedError, match="above the budget") as error:
        privacy.before_round(3, ["ada"], "h3")
    assert error.value.exit_code == 3
    assert (privacy.head(), privacy.ledger.path.stat().st_size) == (head, size)
    assert privacy.before_round(3, ["bob"], "h3") == pytest.approx(
        privacy.spent(), 0.01
    )


def test_calibrated_noise_lasts_for_all_rounds(run):
    plan = PrivacyPlan(**(PLAN | {"noise_multiplier": None, "target_epsilon": 3.0}))
    noise = plan.calibrated().noise_multiplier
    privacy = run(
        mechanisms=local_mechanisms(noise_multiplier=noise),
        noise_multiplier=noise,
        target_epsilon=3.0,
    )
    spent = [
        privacy.before_round(number, ["ada"], f"h{number}") for number in range(10)
    ]
    assert spent == sorted(spent)
    assert 2.95 < spent[-1] <= 3.0


def test_hidden_cohorts_charge_every_client_amplified(run):
    privacy = client_run(run)
    for number in range(10):
        privacy.before_round(number, [f"client-{number}"], f"h{number}")
    expected = events.times(events.sampled(0.1, events.gaussian(1.0)), 10)
    assert privacy.spent() == pytest.approx(
        accounting.epsilon(expected, 1e-4, "add_or_remove_one")
    )
    assert "client-3" not in privacy.ledger.path.read_text()


@pytest.mark.parametrize(
    "sampler",
    [poisson_sampler(sampling_rate=0.1), uniform_sampler(cohort_size=500)],
    ids=["seen", "uniform"],
)
def test_amplification_is_refused_to_a_sampler_that_does_not_earn_it(run, sampler):
    with pytest.raises(PrivacyError, match="does not earn it"):
        client_run(run, sampler)


def test_an_empty_cohort_is_charged_where_it_is_hidden(run):
    assert client_run(run).before_round(0, [], "h0") > 0.0


@pytest.mark.parametrize(
    "changes", [{"noise_multiplier": 0.5}, {"sampling_rate": 0.3}, {"local_steps": 3}]
)
def test_mechanisms_that_spend_more_than_the_plan_are_refused(run, changes):
    with pytest.raises(PrivacyError, match="by its mechanisms"):
        run(mechanisms=local_mechanisms(**changes))


def test_mechanism_for_another_unit_is_refused(run):
    mechanisms = gaussian_mechanism(clipping_norm=1.0, noise_multiplier=9.0).mechanisms
    with pytest.raises(PrivacyError, match="unit = 'example', trust = 'local'"):
        run(mechanisms=mechanisms)


def test_customer_of_two_banks_is_charged_twice(run):
    entity = local_mechanisms(unit="entity")
    once = run(mechanisms=entity, unit="entity")
    twice = run(mechanisms=entity, unit="entity", max_clients_per_entity=2)
    assert events.counted(twice.round_event()).total() == 4
    assert events.counted(once.round_event()).total() == 2


@pytest.fixture
def correlated(run):
    pattern = Participation(num_rounds=15, min_separation=5, max_participations=2)
    stage = banded_mechanism(
        clipping_norm=1.0, noise_multiplier=1.0, participation=pattern
    )
    changes = {"sampling": "cyclic", "sampling_rate": 1.0, "cohort_is_hidden": False}
    changes["num_rounds"] = 15

    def build(min_separation=5, **more):
        return run(
            CLIENT_PLAN | changes | more,
            stage.mechanisms,
            cyclic_sampler(cohort_size=1, min_separation=min_separation),
            max_participations=2,
        )

    return build


def test_correlated_noise_costs_one_gaussian_for_the_whole_run(correlated):
    privacy = correlated()
    for number in (0, 5):
        privacy.before_round(number, ["ada"], f"h{number}")
    whole = accounting.epsilon(events.gaussian(1.0), 1e-4, "add_or_remove_one")
    assert privacy.spent() == pytest.approx(whole)


def test_participation_pattern_is_enforced_across_restarts(correlated):
    correlated().before_round(0, ["ada"], "h0")
    restarted = correlated()
    with pytest.raises(PrivacyError, match="5 rounds apart; it was in"):
        restarted.before_round(4, ["ada"], "h4")
    restarted.before_round(5, ["ada"], "h5")
    with pytest.raises(PrivacyError, match="at most 2 participations"):
        restarted.before_round(11, ["ada"], "h11")


@pytest.mark.parametrize(("planned", "beyond"), [(99, 15), (12, 12)])
def test_no_round_beyond_those_that_the_noise_or_the_plan_was_made_for(
    correlated, planned, beyond
):
    privacy = correlated(num_rounds=planned)
    with pytest.raises(PrivacyError, match=f"Round {beyond} .* beyond the {beyond} "):
        privacy.before_round(beyond, ["ada"], "h")
    assert privacy.head()["length"] == 0
    privacy.before_round(beyond - 1, ["ada"], "h")


def test_correlated_noise_needs_a_sampler_that_keeps_the_separation(correlated):
    with pytest.raises(PrivacyError, match="needs 5 rounds"):
        correlated(min_separation=4)


def test_a_shortened_ledger_is_refused(run):
    privacy = run()
    privacy.before_round(0, ["ada"], "h0")
    head = privacy.head()
    privacy.ledger.path.unlink()
    with pytest.raises(LedgerError, match="remembers 1"):
        run().expect(head)


def later(num_rounds=10):
    return Later(num_rounds, lambda number: ["ada", f"client-{number}"])


def reserving(privacy, rounds=4):
    return replace(privacy, reserve_rounds=rounds)


def test_reserved_rounds_are_spent_at_once_and_paid_for_once(run):
    privacy = reserving(run())
    privacy.reserve(0, later())
    assert privacy.head()["length"] == 4
    four = [privacy.before_round(n, ["ada", f"client-{n}"], f"h{n}") for n in range(4)]
    assert privacy.head()["length"] == 4
    assert len(set(four)) == 1
    assert four[0] == pytest.approx(
        accounting.epsilon(
            events.times(privacy.round_event(), 4),
            1e-4,
            "add_or_remove_one",
            interval=accounting.QUICK,
        )
    )


def test_a_reservation_pays_for_one_input_only(run):
    privacy = reserving(run())
    privacy.reserve(0, later())
    privacy.before_round(0, ["ada", "client-0"], "h0")
    privacy.before_round(0, ["ada", "client-0"], "h0")
    assert privacy.head()["length"] == 4
    privacy.before_round(0, ["ada", "client-0"], "other")
    privacy.before_round(1, ["ada", "somebody else"], "h1")
    assert privacy.head()["length"] == 6


def test_after_a_crash_reserved_rounds_stay_spent_and_are_not_used(run):
    privacy = reserving(run())
    privacy.reserve(0, later())
    spent = privacy.before_round(0, ["ada", "client-0"], "h0")
    restarted = reserving(run())
    assert restarted.spent() == pytest.approx(spent, rel=1e-3)
    restarted.reserve(1, later())
    assert restarted.head()["length"] == 8
    assert restarted.before_round(1, ["ada", "client-1"], "h1") > spent


def test_no_more_is_reserved_than_the_run_and_the_budget_have_left(run):
    short = reserving(run())
    short.reserve(8, later())
    assert short.head()["length"] == 2
    costs = [
        accounting.epsilon(
            events.times(short.round_event(), n), 1e-4, "add_or_remove_one"
        )
        for n in (3, 4)
    ]
    bounded = reserving(run(target_epsilon=sum(costs) / 2))
    bounded.reserve(0, later())
    # ada has spent two rounds; of four, two and one more only one is affordable.
    assert bounded.head()["length"] == 2 + 1


def test_what_can_be_afforded_is_known_without_charging(run):
    free = run()
    assert free.can_afford(9, ["ada"])
    assert not free.can_afford(10, ["ada"])
    cost = free.before_round(0, ["ada"], "h0")
    bounded = run(target_epsilon=cost * 1.01)
    assert not bounded.can_afford(1, ["ada"])
    assert bounded.can_afford(1, ["bob"])
    assert bounded.head()["length"] == 1


def test_the_same_round_under_another_key_is_another_release(run):
    privacy = run()
    lengths = []
    for key in ("", "", "aa", "aa", "bb"):
        replace(privacy, noise_key=key).before_round(0, ("c0",), "input")
        lengths.append(privacy.head()["length"])
    assert lengths == [1, 1, 2, 2, 3]


def test_another_query_of_the_same_name_is_charged_anew(run):
    privacy, cost = run(), {events.gaussian(4.0): 1}
    lengths = []
    for query in ({"bound": 1.0}, {"bound": 1.0}, {"bound": 2.0}):
        privacy.charge_release("loss", cost, query=query, input_hash="input")
        lengths.append(privacy.head()["length"])
    assert lengths == [1, 1, 2]
