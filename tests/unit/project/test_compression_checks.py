import tomllib
from typing import Any

import numpy as np
import pytest

from fedtrain.compression.constraint import one_shot
from fedtrain.compression.size import sparsity
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights
from fedtrain.project.build_compression import constraint_of
from fedtrain.project.new_project import template
from fedtrain.project.problems import ProjectError
from fedtrain.project.read import checked_config, overridden


def problems(*settings: str) -> list[str]:
    tables = overridden(tomllib.loads(template("digits.toml")), settings)
    with pytest.raises(ProjectError) as caught:
        checked_config(tables, file="federation.toml")
    return [problem.key for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("prune_sparsity=0.8", "fine_tuning_rounds"),
        ("fine_tuning_rounds=2, quantize=false", "prune_sparsity"),
        (
            'fine_tuning_rounds=2, prune_sparsity=0.8, prune_pattern="2_of_4"',
            "prune_sparsity",
        ),
        ('fine_tuning_rounds=2, prune_scope="global"', "prune_scope"),
        ("fine_tuning_rounds=2, prune_steps=2", "prune_steps"),
        ("fine_tuning_rounds=2, prune_sparsity=0.5, prune_steps=3", "prune_steps"),
        (
            "fine_tuning_rounds=2, prune_sparsity=0.5, prune_steps=2, num_clusters=4",
            "prune_steps",
        ),
        ("fine_tuning_rounds=2, num_clusters=1", "num_clusters"),
        ("fine_tuning_rounds=2, prune_sparsity=1.0", "prune_sparsity"),
    ],
)
def test_what_cannot_be_done_is_named(section: str, key: str) -> None:
    assert problems(f"compression={{{section}}}") == [f"compression.{key}"]


def test_compressed_variants_need_the_section() -> None:
    asked = 'export.edge_variants=["int8", "compressed_int8"]'
    assert problems(asked) == ["export.edge_variants"]


def constraint(section: str, trainable: Any) -> Any:
    settings = ["rounds.num_rounds=10", f"compression={{{section}}}"]
    tables = overridden(tomllib.loads(template("digits.toml")), settings)
    return constraint_of(checked_config(tables, file="federation.toml"), trainable)


def test_pruning_by_steps_ends_with_all_zeros_in_the_last_of_them() -> None:
    kernel = np.random.Generator(np.random.Philox(1)).normal(size=[20, 30])
    by_steps = constraint(
        "fine_tuning_rounds=4, prune_sparsity=0.8, prune_steps=3", [kernel]
    )
    shares = [
        sparsity(one_shot(ModelWeights([kernel]), by_steps, round_number=number))
        for number in range(10, 14)
    ]
    assert 0.3 < shares[0] < shares[1] < shares[2] == shares[3]
    assert shares[2] == pytest.approx(0.8, abs=0.01)


def test_model_without_kernels_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to compress"):
        constraint("fine_tuning_rounds=1", [np.zeros([3])])
