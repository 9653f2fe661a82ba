import pytest

from fedtrain.aggregation.mean import weighted_mean
from fedtrain.project.build_update_compression import compressed
from fedtrain.project.read import checked_config
from tests.unit.project.test_read import problem_keys, tables


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"update_compression": '"int16"'}, "update_compression"),
        ({"update_compression": "8"}, "update_compression"),
        ({"update_compression": '"top_k"'}, "kept_fraction"),
        ({"update_compression": '"top_k"', "kept_fraction": 0.0}, "kept_fraction"),
        ({"update_compression": '"int8"', "kept_fraction": 0.1}, "kept_fraction"),
        ({"kept_fraction": 0.1}, "kept_fraction"),
    ],
)
def test_wrong_keys_are_named(changes, key):
    content = tables(**{f"rounds__{name}": value for name, value in changes.items()})
    assert problem_keys(content) == [f"rounds.{key}"]


def test_beside_noise_on_the_sum_it_is_refused():
    unit_client = {
        "privacy__unit": "client",
        "privacy__trust": "central",
        "rounds__update_compression": "int8",
    }
    assert "rounds.update_compression" in problem_keys(tables(**unit_client))


@pytest.mark.parametrize("kind", ["int8", "int4", "top_k"])
def test_each_kind_is_a_stage_after_the_mean(kind):
    changes = {"rounds__update_compression": f'"{kind}"'}
    if kind == "top_k":
        changes["rounds__kept_fraction"] = 0.1
    config = checked_config(tables(**changes), file="f")
    mean = weighted_mean()
    assert compressed(mean, config).packings is not mean.packings
    plain = checked_config(tables(), file="f")
    assert compressed(mean, plain) is mean
