import tomllib

import pytest

from fedtrain.project.new_project import template
from fedtrain.project.problems import ProjectError
from fedtrain.project.read import checked_config, overridden

SERVED = 'service={clients=["bank-a"], rows_per_client=10}'


@pytest.mark.parametrize("key", ["evaluation_epsilon", "calibration_epsilon"])
def test_no_epsilon_is_kept_back_for_rows_that_an_export_cannot_ask(key: str) -> None:
    digits = tomllib.loads(template("digits.toml"))
    asked = f"export.{key}=0.5"
    checked_config(overridden(digits, [asked]), file="federation.toml")
    with pytest.raises(ProjectError) as caught:
        checked_config(overridden(digits, [asked, SERVED]), file="federation.toml")
    assert [problem.key for problem in caught.value.problems] == [f"export.{key}"]
