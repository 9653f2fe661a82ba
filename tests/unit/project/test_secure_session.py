import tomllib
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.privacy import events
from fedtrain.project.build import build
from fedtrain.project.config import ProjectConfig
from fedtrain.project.new_project import template
from fedtrain.project.plan_project import plan
from fedtrain.project.problems import ProjectError
from fedtrain.project.read import checked_config, overridden
from fedtrain.project.run import run, start_run
from fedtrain.project.scores import early_stop_of
from fedtrain.project.secure_session import session_of, words_of
from fedtrain.project.toml_text import resolved_toml

SECURE = {
    "data.num_clients": 10,
    "rounds.algorithm": '"fed_sgd"',
    "rounds.num_rounds": 20,
    "rounds.secure_aggregation": "true",
    "privacy.trust": '"distributed"',
}


def config_of(**changes: Any) -> ProjectConfig:
    content = tomllib.loads(template("digits.toml"))
    for key in ("learning_rate", "local_steps", "optimizer", "momentum"):
        content["client"].pop(key, None)
    wishes = SECURE | {key.replace("__", "."): value for key, value in changes.items()}
    settings = [f"{key}={value}" for key, value in wishes.items()]
    return checked_config(overridden(content, settings), file="federation.toml")


def test_a_project_adds_up_whole_numbers_with_shares_of_noise() -> None:
    config = config_of()
    project = build(config, folder=Path())
    (mechanism,) = project.round_.mechanisms
    assert project.plan is not None
    details = dict(mechanism.details)
    assert project.round_.is_modular
    assert (mechanism.trust, mechanism.unit) == ("distributed", "example")
    assert (details["num_clients"], details["num_honest"]) == (10, 6)
    assert details["log2_wrap_probability"] <= -40
    assert project.plan.noise_surplus == pytest.approx(10 / 6)
    planned = events.counted(project.plan.round_event())
    assert events.counted(mechanism.dp_event) == planned
    session = session_of(config, 10)
    assert session is not None
    assert "7 must answer" in words_of(session)
    assert "1.67 times" in words_of(session)


def test_central_noise_in_whole_numbers_on_request() -> None:
    config = config_of(
        rounds__secure_aggregation="false",
        privacy__trust='"central"',
        privacy__mechanism='"discrete_gaussian"',
    )
    (mechanism,) = build(config, folder=Path()).round_.mechanisms
    assert mechanism.name == "central_discrete_gaussian"
    assert session_of(config, 10) is None


def test_an_adaptive_norm_and_metrics_share_the_same_sum() -> None:
    config = config_of(
        privacy__mechanism='"adaptive_gaussian"',
        privacy__metrics_share=0.1,
        stop__metric='"noised_accuracy"',
    )
    project = build(config, folder=Path())
    assert early_stop_of(project) is not None
    (mechanism,) = project.round_.mechanisms
    state = project.round_.init(project.starting_weights())
    assert set(project.round_.reported(state)) == {"noised_loss", "noised_accuracy"}
    assert dict(mechanism.details)["num_weights"] == 650 + 1 + 2
    assert 1.005**0.5 < mechanism.clipping_norm < 1.1


def test_whole_updates_of_clients_are_summed_in_whole_numbers() -> None:
    content = tomllib.loads(template("digits.toml"))
    del content["client"]["sampling_rate"], content["client"]["expected_batch_size"]
    overrides = [
        "rounds.secure_aggregation=true",
        "client.batch_size=8",
        'privacy.unit="client"',
        'privacy.trust="distributed"',
        'privacy.sampling="full"',
        'privacy.neighboring_relation="replace_special"',
        "privacy.accept_weak_privacy=true",
    ]
    config = checked_config(overridden(content, overrides), file="federation.toml")
    project = build(config, folder=Path())
    (mechanism,) = project.round_.mechanisms
    assert (mechanism.unit, mechanism.trust) == ("client", "distributed")
    assert project.round_.is_modular
    assert not project.round_.reports_metrics


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data__num_clients": 2}, "at least 3, got 2.*needs 1 more"),
        ({"rounds__sampler": '"uniform"', "rounds__cohort_size": 2}, "cohort_size"),
        (
            {
                "privacy__mechanism": '"adaptive_gaussian"',
                "client__expected_batch_size": 9,
            },
            "A sum of 10 clients .* 90 units.*expected_batch_size of at least 10, or",
        ),
        ({"rounds__threshold": 6}, "from 7 to 10"),
        ({"rounds__threshold": 1}, "none need be honest"),
        ({"rounds__num_colluding": 10}, "at most 9 can be withstood"),
        ({"privacy__grid_bits": 30}, "Use grid_bits = "),
        ({"rounds__num_regions": 4}, "2 in one.*at most 3 regions, or enrol 2 more"),
        ({"rounds__num_regions": 3, "rounds__threshold": 4}, "from 3 to 3"),
        ({"rounds__num_regions": 3, "privacy__grid_bits": 30}, "Use grid_bits = "),
        (
            {
                "rounds__num_regions": 3,
                "privacy__mechanism": '"adaptive_gaussian"',
                "client__expected_batch_size": 30,
            },
            "at least 100 in each of the 3 regions.*expected_batch_size of at least 34",
        ),
    ],
    ids=str,
)
def test_what_cannot_keep_the_promise_is_refused_with_the_way_out(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        build(config_of(**changes), folder=Path())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rounds__sampler": '"poisson"', "rounds__sampling_rate": 0.5}, "sampler"),
        ({"runtime__kind": '"tff"'}, "runtime.kind"),
        ({"rounds__update_compression": '"int8"'}, "update_compression"),
        ({"privacy__mechanism": '"tree"'}, "privacy.mechanism"),
        ({"privacy__metrics_share": 0.1, "privacy__trust": '"local"'}, "metrics_share"),
        ({"privacy__cohort_is_hidden": "true"}, "cohort_is_hidden"),
        ({"rounds__algorithm": '"fed_avg"'}, "rounds.algorithm"),
        ({"client__local_steps": 2}, "client.local_steps"),
        ({"rounds__weighted": "true"}, "rounds.weighted"),
        ({"runtime__strategy": '"xla"'}, "runtime.strategy"),
        (
            {"rounds__num_colluding": 2, "rounds__secure_aggregation": "false"},
            "rounds.num_colluding",
        ),
        (
            {"privacy__unit": '"client"', "privacy__sampling": '"full"'},
            "privacy.neighboring_relation",
        ),
        ({"rounds__num_regions": 2}, "rounds.num_regions"),
        (
            {"rounds__num_regions": 3, "rounds__secure_aggregation": "false"},
            "rounds.num_regions",
        ),
        (
            {
                "rounds__num_regions": 3,
                "rounds__sampler": '"uniform"',
                "rounds__cohort_size": 9,
            },
            "rounds.sampler",
        ),
    ],
    ids=str,
)
def test_what_secure_aggregation_cannot_do_names_its_key(
    changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ProjectError) as caught:
        config_of(**changes)
    assert any(key in problem.key for problem in caught.value.problems)


def test_regions_provision_each_sum_for_its_own_honest_survivors() -> None:
    flat, config = config_of(), config_of(rounds__num_regions=3)
    project = build(config, folder=Path())
    assert project.plan is not None
    (mechanism,) = project.round_.mechanisms
    details = dict(mechanism.details)
    assert (details["num_honest"], details["num_regions"]) == (2, 3)
    assert project.plan.noise_surplus == pytest.approx(10 / 2)
    # Epsilon is of a region's sum: the same noise as without regions, in larger shares.
    (whole,) = build(flat, folder=Path()).round_.mechanisms
    assert mechanism.noise_multiplier == whole.noise_multiplier
    share = dict(whole.details)["share_stddev"] * 3**0.5
    assert details["share_stddev"] == pytest.approx(share, rel=1e-6)
    assert (
        details["log2_wrap_probability"] > dict(whole.details)["log2_wrap_probability"]
    )
    assert details["log2_wrap_probability"] <= -40


def test_the_plan_says_which_sum_each_level_sees() -> None:
    session = session_of(config_of(rounds__num_regions=3), 10)
    assert session is not None
    for words in (
        "in 3 regions: 1 with 4 clients each, of whom 3 must answer",
        "2 with 3 clients each, of whom 3 must answer",
        "adds 1/2 of the noise that a region's sum needs",
        "5 times its variance",
        "sees its region's sum, and by the total that of the others together",
        "of the 3 regional aggregators 3 must answer",
        "sees the total, as everybody does in the model's steps",
        "Epsilon is that of the regional sums",
    ):
        assert words in words_of(session)


def test_the_report_names_the_strongest_observer(tmp_path: Path) -> None:
    changes = {
        "rounds__num_regions": 3,
        "rounds__num_rounds": 1,
        "runtime__kind": '"eager"',
        "evaluation__baselines": "false",
        "tracking__runs_dir": f'"{tmp_path}"',
        "tracking__tensorboard": "false",
        "tracking__html_report": "false",
        "privacy__metrics_share": 0.1,
        "privacy__target_epsilon": "1000",
        "privacy__noise_multiplier": 1,
    }
    project = build(config_of(**changes), folder=Path())
    summary = run(project, start_run(project), console=Console(quiet=True))
    observer = "whoever sees the sums of all 3 regions of each round"
    assert summary["privacy"]["strongest_observer"].startswith(observer)
    assert observer in summary["privacy_statement"]
    assert "shows only the sum of each region" in summary["privacy_statement"]
    assert "in 3 regions" in summary["secure_aggregation"]


def test_the_plan_says_what_secure_aggregation_costs(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(resolved_toml(config_of()))
    statement = plan(path)["statement"]
    assert "it tolerates the loss of 3" in statement
    assert "1.67 times its variance" in statement
    assert "2600 bytes a contribution" in statement
    assert "in 3 regions" in plan(path, ["rounds.num_regions=3"])["statement"]
    more = ['privacy.mechanism="adaptive_gaussian"', "privacy.metrics_share=0.1"]
    along = plan(path, more)["statement"]
    assert "2612 bytes a contribution" in along
    assert "times as wide as alone" in along
    assert "as wide as alone" not in statement
    with pytest.raises(PrivacyError, match="Use grid_bits"):
        plan(path, ["privacy.grid_bits=30"])
    # What is solved for is what has to fit: here so much noise that no ring holds it.
    build(config_of(privacy__noise_multiplier=2, privacy__grid_bits=25), folder=Path())
    tight = ["privacy.noise_multiplier=2", "privacy.grid_bits=25"]
    with pytest.raises(PrivacyError, match="Use grid_bits"):
        plan(path, [*tight, "privacy.target_epsilon=0.01"], solve_for="noise")
