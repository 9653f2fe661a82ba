import tomllib
from pathlib import Path
from typing import Any

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.project.build import planned
from fedtrain.project.build_cohorts import sampler_of
from fedtrain.project.new_project import template
from fedtrain.project.problems import ProjectError
from fedtrain.project.read import checked_config, overridden, read_config
from fedtrain.project.toml_text import resolved_toml, toml_text


def tables(**changes: Any) -> dict[str, Any]:
    return overridden(
        tomllib.loads(template("digits.toml")),
        [f"{key.replace('__', '.')}={value}" for key, value in changes.items()],
    )


def problem_keys(content: dict[str, Any]) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        checked_config(content, file="federation.toml")
    assert len(str(caught.value).splitlines()) <= 24, "an error must fit one screen"
    assert "federation.toml" in str(caught.value)
    return [problem.key for problem in caught.value.problems]


def without(section: str, key: str) -> dict[str, Any]:
    content = tables()
    del content[section][key]
    return content


@pytest.mark.parametrize("file", ["digits.toml", "new/federation.toml"])
def test_resolved_file_reads_back_to_the_same_configuration(file: str) -> None:
    content = tomllib.loads(template(file).replace("@NAME@", "mine"))
    config = checked_config(content, file=file)
    again = checked_config(tomllib.loads(resolved_toml(config)), file="resolved")
    assert again == config


def test_new_project_trains_its_baselines_at_a_rate_for_unclipped_gradients() -> None:
    content = tomllib.loads(template("new/federation.toml").replace("@NAME@", "mine"))
    config = checked_config(content, file="federation.toml")
    baseline, clipped = (
        config.evaluation.baseline_learning_rate,
        config.client.learning_rate,
    )
    assert baseline is not None
    assert clipped is not None
    assert baseline <= clipped / 4


def test_toml_text_keeps_what_toml_can_say() -> None:
    content = {"a": 'q"\\\n\x7fü', "b": [1, 2.5, True], "c": {"d e": {"f": 1e-4}}}
    assert tomllib.loads(toml_text(content)) == content


def test_unknown_key_names_the_closest_known_one() -> None:
    with pytest.raises(ProjectError, match=r"Did you mean 'noise_multiplier'\?"):
        checked_config(tables(privacy__nosie_multiplier=1.0), file="f")


def test_key_of_another_section_is_told_where_it_belongs() -> None:
    with pytest.raises(ProjectError, match=r"belongs to \[client\]"):
        checked_config(tables(privacy__batch_size=3), file="f")


@pytest.mark.parametrize(
    "key", ["unit", "trust", "neighboring_relation", "delta", "sampling"]
)
def test_the_promise_has_no_defaults(key: str) -> None:
    assert problem_keys(without("privacy", key)) == [f"privacy.{key}"]


@pytest.mark.parametrize("key", ["seed", "name"])
def test_missing_top_level_key(key: str) -> None:
    content = tables()
    del content[key]
    assert problem_keys(content) == [key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds.num_rounds", "ten"),
        ("rounds.num_rounds", "true"),
        ("rounds.num_rounds", "2.5"),
        ("rounds.num_rounds", "0"),
        ("client.learning_rate", "-1"),
        ("client.learning_rate", "inf"),
        ("client.schedule.kind", "linear"),
        ("model.hidden", "[0]"),
        ("privacy.delta", "1.0"),
        ("privacy.unit", "row"),
        ("data.name", "3"),
        ("name", '"a b"'),
        ("tracking.html_report", "1"),
    ],
)
def test_wrong_value_names_its_key(key: str, value: str) -> None:
    content = overridden(tables(), [f"{key}={value}"])
    assert problem_keys(content)[0].startswith(key)


def test_wrong_value_says_what_was_found_and_what_is_allowed() -> None:
    with pytest.raises(ProjectError) as caught:
        checked_config(tables(rounds__algorithm="fedavg"), file="f")
    text = str(caught.value)
    assert '"fedavg"' in text
    assert '"fed_avg", "fed_prox", "fed_sgd"' in text
    assert "Did you mean 'fed_avg'?" in text


def test_all_problems_are_told_at_once() -> None:
    content = tables(rounds__num_rounds=0, client__learning_rate=-1, privacy__unti=1)
    assert problem_keys(content) == [
        "rounds.num_rounds",
        "client.learning_rate",
        "privacy.unti",
    ]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data__path": "rows.csv"}, "data.name"),
        ({"data__partition": "iid"}, "data.concentration"),
        ({"data__partition": "labels_per_client"}, "data.num_labels"),
        ({"rounds__sampler": "uniform"}, "rounds.cohort_size"),
        ({"rounds__cohort_size": 3}, "rounds.cohort_size"),
        ({"rounds__algorithm": "fed_prox"}, "rounds.proximal_strength"),
        ({"client__batch_size": 3}, "client.batch_size"),
        ({"client__optimizer": "adam", "client__momentum": 0.9}, "client.momentum"),
        ({"server__beta_1": 0.9}, "server.beta_1"),
        ({"privacy__trust": "distributed"}, "rounds.secure_aggregation"),
        ({"rounds__secure_aggregation": "true"}, "privacy.trust"),
        ({"rounds__threshold": 3}, "rounds.threshold"),
        ({"privacy__trust": "central"}, "rounds.algorithm"),
        ({"privacy__unit": "entity"}, "privacy.max_rows_per_entity"),
        ({"privacy__sampling": "uniform"}, "privacy.sampling"),
        ({"privacy__mechanism": "tree"}, "privacy.mechanism"),
        ({"rounds__weighted": "true"}, "rounds.weighted"),
    ],
)
def test_contradiction_names_a_key(changes: dict[str, Any], key: str) -> None:
    assert key in problem_keys(tables(**changes))


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("packed", []),
        ("../a.b/packed", []),
        ("branch_*.csv", ["data.label"]),
        ("tff.h5", ["data.label"]),
        ("rows.csv", ["data.label", "data.client"]),
        ("postgresql://host/bank", ["data.label", "data.client"]),
    ],
)
def test_what_a_source_does_not_say_itself_is_asked(
    path: str, asked: list[str]
) -> None:
    content = {**tables(), "data": {"path": path}}
    assert (problem_keys(content) if asked else []) == asked
    if not asked:
        checked_config(content, file="federation.toml")


def client_level(**changes: Any) -> dict[str, Any]:
    content = tables(
        privacy__unit="client",
        privacy__trust="central",
        privacy__sampling="full",
        client__batch_size=8,
        client__local_epochs=1,
    )
    for key in ("sampling_rate", "expected_batch_size", "local_steps"):
        del content["client"][key]
    return overridden(
        content, [f"{k.replace('__', '.')}={v}" for k, v in changes.items()]
    )


def test_amplification_is_claimed_only_with_the_sampler_that_earns_it() -> None:
    checked_config(client_level(), file="f")
    earned = {"rounds__sampler": "poisson", "rounds__sampling_rate": 0.1}
    checked_config(client_level(privacy__sampling="poisson", **earned), file="f")
    claimed = client_level(privacy__sampling="poisson")
    assert problem_keys(claimed) == ["privacy.sampling"]


@pytest.mark.parametrize("sampler", ["uniform", "cyclic"])
def test_cohorts_of_a_fixed_size_do_not_add_or_remove_one(sampler: str) -> None:
    size = {"rounds__cohort_size": 3, "rounds__sampler": sampler}
    if sampler == "cyclic":
        size["rounds__min_separation"] = 2
    size |= {"privacy__sampling": sampler, "privacy__accept_weak_privacy": "true"}
    added = client_level(**size)
    assert problem_keys(added) == ["privacy.neighboring_relation"]
    relations = ("replace_special", "replace_one")
    plans = [
        planned(
            checked_config(
                client_level(**size, privacy__neighboring_relation=relation), file="f"
            ),
            folder=Path(),
        ).calibrated()
        for relation in relations
    ]
    special, replaced = (plan.noise_multiplier for plan in plans)
    assert replaced == pytest.approx(2 * special, rel=1e-3)


@pytest.mark.parametrize("num_regions", [None, 3])
def test_shares_of_noise_are_of_clients_that_are_the_same_in_both_neighbours(
    num_regions: int | None,
) -> None:
    changes: dict[str, Any] = {
        "data__num_clients": 9,
        "rounds__secure_aggregation": "true",
        "privacy__trust": "distributed",
        "privacy__sampling": "full",
    }
    if num_regions is not None:
        changes["rounds__num_regions"] = num_regions
    assert problem_keys(client_level(**changes)) == ["privacy.neighboring_relation"]
    for relation in ("replace_special", "replace_one"):
        known = {"privacy__neighboring_relation": relation}
        checked_config(client_level(**changes, **known), file="f")


def test_a_hidden_cohort_needs_a_sampler_that_it_amplifies() -> None:
    hidden = client_level(privacy__cohort_is_hidden="true")
    assert problem_keys(hidden) == ["privacy.cohort_is_hidden"]
    rows = tables(privacy__cohort_is_hidden="true")
    assert problem_keys(rows) == ["privacy.cohort_is_hidden"]


@pytest.mark.parametrize("is_hidden", [False, True])
def test_only_a_cohort_declared_hidden_amplifies(*, is_hidden: bool) -> None:
    config = checked_config(
        client_level(
            rounds__sampler="poisson",
            rounds__sampling_rate=0.1,
            rounds__num_rounds=5,
            privacy__sampling="poisson",
            privacy__accept_weak_privacy="true",
            privacy__cohort_is_hidden=str(is_hidden).lower(),
            privacy__delta=1e-3,
        ),
        file="f",
    )
    assert sampler_of(config).amplifies is is_hidden
    assert planned(config, folder=Path()).amplifies is is_hidden


def test_client_level_noise_cannot_be_local() -> None:
    assert "privacy.trust" in problem_keys(client_level(privacy__trust="local"))


def test_no_privacy_section_means_no_privacy() -> None:
    content = client_level()
    del content["privacy"]
    assert checked_config(content, file="f").privacy is None


def test_overrides_are_toml_values_or_text() -> None:
    content = overridden(
        {"a": {"b": 1}}, ["a.b=2.5", "a.c=[1, 2]", "a.d=word", "e=true"]
    )
    assert content == {"a": {"b": 2.5, "c": [1, 2], "d": "word"}, "e": True}


@pytest.mark.parametrize("override", ["rounds.num_rounds", "=3", "seed.deep=1"])
def test_override_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="-s"):
        overridden({"seed": 1}, [override])


def test_absent_file_and_file_that_is_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedtrain new NAME"):
        read_config(tmp_path / "no.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("seed = \n")
    with pytest.raises(ConfigError, match="line 1"):
        read_config(bad)
