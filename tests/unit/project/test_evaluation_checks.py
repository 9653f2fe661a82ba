import pytest

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.project.build import build
from fedtrain.project.paid_evaluation import evaluation_noise, num_evaluations
from fedtrain.project.read import checked_config
from fedtrain.project.scores import early_stop_of
from tests.unit.aggregator.small_project import (
    FRAME,
    PLAIN,
    POISSON,
    PRIVACY,
    SCHEMA,
    plan_of,
    small_project,
)

HELD = {"held_out_fraction": 0.25}


def config_of(*, privacy=None, rounds=None, **sections):
    tables = {
        "name": "small",
        "seed": 3,
        "data": {"path": "a table in memory", "label": "label", "client": "bank"},
        "model": {"name": "dense_classifier"},
        "rounds": {"num_rounds": 10, **(rounds or {})},
        "client": PLAIN if privacy is None else POISSON,
        **sections,
    }
    if privacy:
        tables["privacy"] = privacy
    return checked_config(tables, file="test")


def built(tmp_path, sensitivity="public", **settings):
    config = config_of(**settings)
    data = config.data.model_copy(update={"sensitivity": sensitivity})
    return build(
        config.model_copy(update={"data": data}),
        folder=tmp_path,
        data=FRAME.assign(bank=["a", "b"] * 4),
    )


WRONG = {
    "nothing held out": {"privacy": PRIVACY, "evaluation": {"epsilon": 1.0}},
    "nothing to pay": {"evaluation": {**HELD, "epsilon": 1.0}},
    "two answers": {
        "privacy": PRIVACY,
        "evaluation": {**HELD, "epsilon": 1.0, "noise_multiplier": 2.0},
    },
    "central trust": {
        "privacy": {**PRIVACY, "trust": "central"},
        "evaluation": {**HELD, "epsilon": 1.0},
    },
    "stop while compressing": {
        "stop": {"metric": "loss"},
        "compression": {"fine_tuning_rounds": 2},
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_keys_that_contradict_each_other_are_named(wrong):
    key = "stop.metric" if "stop" in wrong else "evaluation."
    with pytest.raises(ConfigError, match=key):
        config_of(**WRONG[wrong])


def test_scores_of_private_rows_that_nothing_pays_for_are_refused(tmp_path):
    with pytest.raises(PrivacyError, match=r"evaluation\.epsilon"):
        small_project(tmp_path, data={}, evaluation=HELD)


def test_a_metric_that_no_round_reports_is_refused_with_those_that_it_does(tmp_path):
    project = built(tmp_path, stop={"metric": "test_accuracy"}, evaluation=HELD)
    with pytest.raises(ConfigError, match="loss, accuracy, held_out_loss"):
        early_stop_of(project)
    named = built(tmp_path, stop={"metric": "held_out_loss"}, evaluation=HELD)
    assert early_stop_of(named).less_is_better


def test_public_rows_are_scored_exactly_and_for_nothing(tmp_path):
    project = built(tmp_path, privacy=PRIVACY, evaluation=HELD)
    assert project.held_out.cost is None
    kept, trained = project.held_out.rows, project.split.train
    assert kept.examples.num_examples + trained.examples.num_examples == len(FRAME)
    assert project.plan.reserved == ()


@pytest.mark.parametrize(
    ("every", "tuning", "expected"), [(1, 0, 10), (4, 0, 3), (20, 0, 1), (4, 3, 5)]
)
def test_every_evaluation_is_counted(every, tuning, expected):
    evaluation = {**HELD, "every": every}
    compression = {"compression": {"fine_tuning_rounds": tuning}} if tuning else {}
    config = config_of(evaluation=evaluation, **compression)
    assert num_evaluations(config) == expected


def test_all_evaluations_together_cost_what_the_file_says(tmp_path):
    evaluation = {**HELD, "every": 1, "epsilon": 1.5}
    plain = small_project(tmp_path)
    project = small_project(tmp_path, evaluation=evaluation)
    noise = evaluation_noise(project.config)
    assert project.plan.reserved == (noise,) * 4  # three, and a further attempt
    alone = project.plan.epsilon() - plain.plan.epsilon()
    assert 0.0 < alone < 1.5
    plan = plan_of(project)
    section = plan.task["sections"]["evaluation"]
    assert section == {"every": 1, **HELD, "noise_multiplier": noise}
    assert [spec.dtype for spec in plan.evaluation] == ["float64"] * 2
    assert any("noised counts" in line and "25 %" in line for line in plan.leaves)
    assert any(line.startswith("after each round") for line in plan.leaves)
    assert plan.privacy.epsilon == pytest.approx(project.plan.epsilon())


def test_a_plan_without_evaluation_is_the_plan_it_was(tmp_path):
    plan = plan_of(small_project(tmp_path, schema=SCHEMA))
    assert plan.evaluation == ()
    assert "evaluation" not in plan.task["sections"]
