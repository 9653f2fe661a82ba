import tomllib

import pytest

from fedtrain.project.new_project import template
from fedtrain.project.problems import ProjectError
from fedtrain.project.read import checked_config, overridden

SECURE = [
    "rounds.secure_aggregation=true",
    'rounds.algorithm="fed_sgd"',
    "client={sampling_rate=0.5, expected_batch_size=36.0}",
    'privacy.trust="distributed"',
]
SERVED = 'service={clients=["bank-a"], rows_per_client=10}'


@pytest.mark.parametrize("key", ["evaluation_epsilon", "calibration_epsilon"])
def test_no_epsilon_is_kept_back_for_rows_that_an_export_cannot_ask(key: str) -> None:
    digits = tomllib.loads(template("digits.toml"))
    asked = f"export.{key}=0.5"
    checked_config(overridden(digits, [asked]), file="federation.toml")
    for others in ([SERVED], SECURE):
        with pytest.raises(ProjectError) as caught:
            checked_config(overridden(digits, [asked, *others]), file="federation.toml")
        assert [problem.key for problem in caught.value.problems] == [f"export.{key}"]


def test_a_largest_weight_needs_a_weighted_mean() -> None:
    content = tomllib.loads(template("digits.toml"))
    content["client"] = {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 1}
    unit = ['privacy.unit="client"', 'privacy.trust="central"']
    changes = [*unit, 'privacy.sampling="full"', "privacy.max_weight=10.0"]
    checked_config(overridden(content, [*changes, "rounds.weighted=true"]), file="f")
    with pytest.raises(ProjectError) as caught:
        checked_config(overridden(content, changes), file="f")
    assert [problem.key for problem in caught.value.problems] == ["privacy.max_weight"]
