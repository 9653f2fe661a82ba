from dataclasses import replace

import numpy as np
import pytest

from clients import training
from clients.checking import _afforded
from clients.odometer import Odometer, terms_of
from clients.policy import Facts, policy_for
from clients.promise import check_promise
from clients.work import RoundTask
from fedtrain.core.errors import (
    BudgetExhaustedError,
    ConfigError,
    DataError,
    PrivacyError,
)
from fedtrain.core.state_dir import state_dir
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from fedtrain.privacy import events
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.crossing import specs
from fedtrain.wire.arrays import ArraySpec, from_bytes, num_bytes
from tests.unit.aggregator.small_project import (
    FRAME,
    PRIVACY,
    SCHEMA,
    plan_of,
    small_project,
)

TASK = RoundTask("run", 0, 0, "train", "aa", {"seed": [0, 0]})
EXACT = {events.NonPrivate(): 1}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(small_project(tmp_path_factory.mktemp("operator")))


@pytest.fixture
def work_of(tmp_path, monkeypatch):
    """The partner's work of a plan on eight rows."""
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    rows = tmp_path / "rows.csv"
    FRAME.to_csv(rows, index=False)

    def work(plan):
        return training.work_of(plan, data=str(rows), home=tmp_path, client_id="bank-a")

    work.rows = rows
    return work


def stating(plan, **changes):
    return plan.model_copy(update={"privacy": plan.privacy.model_copy(update=changes)})


def doing(plan, section, **changes):
    sections = dict(plan.task["sections"])
    sections[section] = {**sections[section], **changes}
    return plan.model_copy(update={"task": {**plan.task, "sections": sections}})


def without_privacy(plan):
    client = {"learning_rate": 0.1, "batch_size": 4, "local_epochs": 1}
    sections = {**plan.task["sections"], "client": client}
    del sections["privacy"]
    return plan.model_copy(update={"task": {**plan.task, "sections": sections}})


LIES = {
    "less epsilon": (lambda plan: stating(plan, epsilon=1e-3), "epsilon = 0.001"),
    "more attempts": (
        lambda plan: stating(plan, further_attempts=2),
        "further_attempts = 2, and the sections have 1",
    ),
    "no noise": (without_privacy, "add no noise"),
    "noise of a seed": (
        lambda plan: doing(plan, "service", repeats_simulation=True),
        "repeats_simulation = true",
    ),
    "less noise": (
        lambda plan: doing(plan, "privacy", noise_multiplier=1.0),
        "mechanism.noise_multiplier = 2.0, and this machine's is 1.0",
    ),
    "more steps": (lambda plan: doing(plan, "client", local_steps=9), "details"),
    "another delta": (lambda plan: doing(plan, "privacy", delta=1e-2), "delta = 0.001"),
    "more rounds": (
        lambda plan: plan.model_copy(update={"num_rounds": 30}),
        "num_rounds = 30",
    ),
    "evaluations": (
        lambda plan: plan.model_copy(
            update={"evaluation": (ArraySpec((), "float32"),)}
        ),
        "evaluation rounds",
    ),
    "no guarantee": (
        lambda plan: plan.model_copy(update={"privacy": None}),
        "no guarantee",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_plan_that_does_not_do_what_it_states_is_refused(work_of, plan, lie):
    changed, said = LIES[lie]
    with pytest.raises(PrivacyError, match=said):
        work_of(changed(plan))


def test_a_round_that_spends_more_than_is_counted_is_refused(tmp_path, plan):
    project = small_project(tmp_path)
    check_promise(plan, project)
    counted = replace(project.plan, local_steps=1)
    with pytest.raises(PrivacyError, match="in a round, and the mechanism is"):
        check_promise(plan, replace(project, plan=counted))


@pytest.mark.parametrize(
    ("section", "named"),
    [("model", {"path": "../model.py"}), ("data", {"test_path": "/etc/passwd"})],
)
def test_a_plan_names_no_files_of_the_partners(work_of, plan, section, named):
    changed = doing(plan, section, **named)
    if section == "model":
        changed.task["sections"]["model"].pop("name")
    with pytest.raises(ConfigError, match="names files on your machine"):
        work_of(changed)


def test_a_round_is_paid_for_under_the_name_of_its_noise(work_of, plan):
    work = work_of(plan)
    cost = work.cost(TASK)
    assert cost.counts == {events.sampled(0.5, events.gaussian(2.0)): 2}
    others = [TASK._replace(attempt=1), TASK._replace(broadcast_sha256="bb")]
    names = {cost.noise, *(work.cost(task).noise for task in others)}
    assert work_of(plan).cost(TASK) == cost
    FRAME.iloc[::-1].to_csv(work_of.rows, index=False)
    assert len({*names, work_of(plan).cost(TASK).noise}) == 4


def test_an_evaluation_is_paid_for_and_repeats_its_noise(work_of, tmp_path):
    paid = {"held_out_fraction": 0.5, "epsilon": 1.0}
    plan = plan_of(small_project(tmp_path, evaluation=paid))
    noise = plan.task["sections"]["evaluation"]["noise_multiplier"]
    task = TASK._replace(kind="evaluate")
    weights = from_bytes(plan.broadcast, bytes(num_bytes(plan.broadcast)))
    work = work_of(plan)
    cost = work.cost(task)
    assert cost.counts == {events.gaussian(noise): 1}
    assert cost.most == 3 + 1  # three rounds, and one further attempt
    assert cost.noise != work.cost(TASK).noise
    answer = work.compute(task, weights)
    again, other = (
        work_of(plan).compute(asked, weights)
        for asked in (task, task._replace(attempt=1))
    )
    assert specs(answer) == plan.evaluation
    assert answer == again
    assert answer != other
    assert work.num_examples == len(FRAME)


def test_noised_evaluations_need_no_leave_for_exact_metrics(tmp_path):
    held_out = {"held_out_fraction": 0.5}
    noised = plan_of(small_project(tmp_path, evaluation={**held_out, "epsilon": 1.0}))
    policy_for(noised).check(noised, Facts(num_examples=8))
    exact = plan_of(small_project(tmp_path, privacy=None, evaluation=held_out))
    policy = policy_for(exact, max_epsilon=np.inf)
    (clause,) = policy.violations(exact, Facts(num_examples=8))
    assert "exact_metrics_may_leave" in clause


def test_a_first_policy_has_room_for_the_further_attempts_of_its_plan(
    work_of, tmp_path
):
    project = small_project(tmp_path, further_attempts=2)
    plan = plan_of(project)
    work, policy = work_of(plan), policy_for(plan)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    odometer = Odometer(ledger, client_id="bank-a", terms=terms_of(plan))
    *allowed, beyond = [
        TASK._replace(round_number=number, attempt=attempt)
        for number, attempt in [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    ]
    for task in allowed:
        odometer.charge(task, work.cost(task), max_epsilon=policy.max_epsilon)
    spent = odometer.spent()["epsilon"]
    assert plan.privacy.epsilon == pytest.approx(spent, rel=1e-3)
    with pytest.raises(BudgetExhaustedError, match="counts 5 answers"):
        odometer.check(beyond, work.cost(beyond), max_epsilon=policy.max_epsilon)
    uncounted = work.cost(beyond)._replace(most=None)
    with pytest.raises(BudgetExhaustedError, match="above max_epsilon"):
        odometer.check(beyond, uncounted, max_epsilon=policy.max_epsilon)


def test_rows_of_an_entity_decide_its_noise(work_of, tmp_path):
    ids = FRAME.assign(customer=[1, 1, 2, 2, 3, 3, 4, 4])
    schema = infer_schema(table_of(ids), label="label", entity="customer")
    privacy = {**PRIVACY, "unit": "entity", "max_rows_per_entity": 2}
    data = {"entity": "customer"}
    project = small_project(
        tmp_path, privacy=privacy, data=data, schema=schema.with_source("declared")
    )
    plan = plan_of(project)
    ids.to_csv(work_of.rows, index=False)
    work = work_of(plan)
    zeros = [np.zeros(spec.shape, spec.dtype) for spec in plan.broadcast]
    assert len(work.compute(TASK, zeros)) == len(plan.contribution)
    ids.assign(customer=[1, 2, 1, 2, 3, 3, 4, 4]).to_csv(work_of.rows, index=False)
    assert work_of(plan).cost(TASK).noise != work.cost(TASK).noise


def test_a_partners_missing_value_is_refused_unless_the_plan_allows_it(tmp_path):
    with_gap = FRAME.astype({"x": float})
    with_gap.loc[2, "x"] = np.nan
    path = tmp_path / "rows.csv"
    with_gap.to_csv(path, index=False)
    with pytest.raises(
        DataError, match=r"rows\.csv: row 2 .*'x', .*is missing.* ask the operator"
    ) as refused:
        training.own_rows(str(path), SCHEMA, num_classes=2)
    assert "schema_path" not in str(refused.value)
    allowing = infer_schema(table_of(with_gap), label="label").with_source("declared")
    rows = training.own_rows(str(path), allowing, num_classes=2)
    assert rows.features[2, :2].tolist() == [0, 1]


def test_once_the_run_has_ended_its_key_is_gone_and_another_pays_anew(work_of, plan):
    work = work_of(plan)
    cost = work.cost(TASK)
    (key,) = (state_dir() / "noise").glob("*.key")
    work.forget()
    work.forget()
    assert not key.exists()
    assert work_of(plan).cost(TASK).noise != cost.noise


@pytest.mark.parametrize(
    "options", [{"privacy": None}, {"repeats_simulation": True}], ids=str
)
def test_what_nobody_can_bound_is_charged_as_not_private(work_of, tmp_path, options):
    plan = plan_of(small_project(tmp_path, **options))
    work = work_of(plan)
    cost = work.cost(TASK)
    assert cost.counts == EXACT
    work.forget()  # there is no key
    ledger = Ledger(tmp_path / "ledger.jsonl")
    odometer = Odometer(ledger, client_id="bank-a", terms=terms_of(plan))
    odometer.charge(TASK, cost, max_epsilon=np.inf)
    assert Ledger(ledger.path).head()["length"] == 1
    assert odometer.spent()["epsilon"] is None
    policy = policy_for(
        plan, max_epsilon=np.inf, allow_central=False, allow_exact_metrics=True
    )

    class Rows:
        odometer_of = staticmethod(lambda plan: odometer)

    assert "without a bound" in _afforded(plan, work, Rows, policy)
