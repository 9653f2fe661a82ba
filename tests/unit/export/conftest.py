import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from fedtrain.core import seeds
from fedtrain.data.examples import Examples
from fedtrain.export.source import Source
from fedtrain.models.model import Model


@pytest.fixture(scope="session")
def source_with() -> Callable[..., Source]:
    """A source of a model with its initial weights, and no run behind it."""

    def source(model: Model, evaluation: Examples, **others: Any) -> Source:
        nothing = dict.fromkeys(field.name for field in dataclasses.fields(Source))
        known = {
            "name": model.name,
            "model": model,
            "weights": model.init(seeds.root(3)),
            "evaluation": evaluation,
            "label_names": ("no", "yes"),
            "task": "classification",
            "status": "simulation",
        }
        return Source(**{**nothing, **known, **others})

    return source
