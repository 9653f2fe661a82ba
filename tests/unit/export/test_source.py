from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.export import source


def test_rows_whose_encoding_is_unknown_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(name="loans", data=SimpleNamespace(name=None))
    folder = SimpleNamespace(schema=tmp_path / "schema.json")
    run: Any = SimpleNamespace(config=config, folder=folder)
    split: Any = SimpleNamespace(train=None)
    monkeypatch.setattr(source, "schema_of", lambda train: None)
    with pytest.raises(ConfigError, match=r"loans came without a schema.*data\.schema"):
        source._schema(run, split)
    config.data.name = "digits"  # a named data set has its own preparation
    assert source._schema(run, split) is None
