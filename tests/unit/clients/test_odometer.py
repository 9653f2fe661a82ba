import math

import pytest

from clients.odometer import Odometer, terms_of
from clients.work import Cost, RoundTask
from fedtrain.core.errors import BudgetExhaustedError, LedgerError
from fedtrain.privacy import accounting, events
from fedtrain.privacy.ledger import Ledger

STEP = Cost("example", {events.gaussian(4.0): 1})


def task(number, **changes):
    return RoundTask("run-1", number, 0, "train", "aa", {})._replace(**changes)


def epsilon(num_steps):
    event = events.times(events.gaussian(4.0), num_steps)
    return accounting.epsilon(event, 1e-5, "add_or_remove_one")


@pytest.fixture
def odometer(tmp_path, plan):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    return Odometer(ledger, client_id="bank-a", terms=terms_of(plan))


def test_epsilon_is_of_all_answers_in_the_terms_of_the_plan(odometer):
    assert odometer.spent()["epsilon"] == 0.0
    for number in range(3):
        odometer.charge(task(number), STEP, max_epsilon=10.0)
    spent = odometer.spent()
    assert spent["epsilon"] == pytest.approx(epsilon(3))
    assert (spent["unit"], spent["delta"]) == ("example", 1e-5)


def test_the_same_answer_is_charged_once_and_never_refused(odometer):
    bound = epsilon(1)
    for _ in range(3):
        odometer.check(task(0), STEP, max_epsilon=bound)
        odometer.charge(task(0), STEP, max_epsilon=bound)
    assert odometer.head()["length"] == 1


@pytest.mark.parametrize(
    "change",
    [{"attempt": 1}, {"run_id": "run-2"}, {"broadcast_sha256": "bb"}],
)
def test_another_attempt_run_or_broadcast_is_charged_anew(odometer, change):
    odometer.charge(task(0), STEP, max_epsilon=10.0)
    odometer.charge(task(0, **change), STEP, max_epsilon=10.0)
    assert odometer.spent()["epsilon"] == pytest.approx(epsilon(2))


def test_other_noise_is_charged_anew(odometer):
    for noise in ("of-this-key", "of-a-new-key", "of-this-key"):
        odometer.charge(task(0), STEP._replace(noise=noise), max_epsilon=10.0)
    assert odometer.spent()["epsilon"] == pytest.approx(epsilon(2))


def test_a_row_pays_under_all_names_that_operators_gave_the_partner(
    odometer, tmp_path, plan
):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    other = Odometer(ledger, client_id="client-7", terms=terms_of(plan))
    odometer.charge(task(0), STEP, max_epsilon=10.0)
    other.charge(task(0), STEP, max_epsilon=10.0)
    assert other.spent()["epsilon"] == pytest.approx(epsilon(2))


def test_beyond_the_policy_nothing_is_charged(odometer):
    bound = (epsilon(1) + epsilon(2)) / 2
    odometer.charge(task(0), STEP, max_epsilon=bound)
    for use in (odometer.check, odometer.charge):
        with pytest.raises(BudgetExhaustedError, match="max_epsilon"):
            use(task(1), STEP, max_epsilon=bound)
    assert odometer.head()["length"] == 1
    odometer.charge(task(1), STEP, max_epsilon=math.inf)


def test_no_more_answers_than_the_plan_counts_leave_in_a_run(odometer, tmp_path, plan):
    step = STEP._replace(most=2)
    for attempt in range(2):
        odometer.charge(task(0, attempt=attempt), step, max_epsilon=math.inf)
    reopened = Odometer(
        Ledger(tmp_path / "ledger.jsonl"), client_id="bank-a", terms=terms_of(plan)
    )
    for use in (odometer.check, odometer.charge, reopened.check, reopened.charge):
        use(task(0, attempt=1), step, max_epsilon=math.inf)
        with pytest.raises(BudgetExhaustedError, match="counts 2 answers"):
            use(task(1), step, max_epsilon=math.inf)
    for other in (task(0, kind="evaluate"), task(0, run_id="run-2")):
        odometer.charge(other, step, max_epsilon=math.inf)
    assert odometer.head()["length"] == 4


def test_what_was_not_private_has_no_epsilon(odometer):
    exact = Cost("example", {events.gaussian(0.0): 1})
    odometer.charge(task(0), exact, max_epsilon=math.inf)
    assert odometer.spent()["epsilon"] is None
    with pytest.raises(BudgetExhaustedError):
        odometer.check(task(1), STEP, max_epsilon=1e6)


def test_a_ledger_that_lost_its_end_is_noticed(odometer, tmp_path, plan):
    odometer.charge(task(0), STEP, max_epsilon=10.0)
    head = odometer.head()
    (tmp_path / "ledger.jsonl").unlink()
    fresh = Ledger(tmp_path / "ledger.jsonl")
    again = Odometer(fresh, client_id="bank-a", terms=terms_of(plan))
    with pytest.raises(LedgerError, match="shortened"):
        again.expect(head)
    again.expect({**head, "file": "of other rows"})
