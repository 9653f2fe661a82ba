import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtrain.project.ledger_identity import ledger_identity, table_sha256
from fedtrain.project.new_project import template
from fedtrain.project.read import checked_config, overridden


def identity(path: str, *, name: str = "mine", given: Any = None) -> str:
    changes = [f"name={name}", f'data={{path="{path}", label="y", client="c"}}']
    tables = overridden(tomllib.loads(template("digits.toml")), changes)
    config = checked_config(tables, file="f")
    project: Any = SimpleNamespace(config=config, folder=Path(), given_data=given)
    return ledger_identity(project)


@pytest.mark.parametrize(
    "other",
    [
        "s3://user:secret@bucket/rows.parquet",
        "S3://bucket/rows.parquet?token=secret",
        "s3://bucket/rows.parquet/",
    ],
)
def test_url_is_known_by_where_it_leads_whatever_the_project(other: str) -> None:
    known = identity("s3://bucket/rows.parquet")
    assert identity(other, name="renamed") == known
    assert "secret" not in known
    assert identity("s3://bucket/others.parquet") != known


def test_driver_of_a_database_is_not_its_rows() -> None:
    driver = identity("postgresql+psycopg://user:secret@HOST/bank")
    assert driver == identity("postgresql://host/bank")


def test_table_is_known_by_its_rows_in_any_order() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]})
    known = identity("a table in memory", given=frame)
    shuffled = frame.iloc[[2, 0, 1]][["c", "x"]]
    assert identity("a table in memory", name="other", given=shuffled) == known
    assert table_sha256(frame.assign(x=[1.0, 2.0, 4.0])) != table_sha256(frame)
    swapped = frame.assign(c=["b", "a", "a"])
    assert table_sha256(swapped) != table_sha256(frame)


def test_columns_may_hold_arrays() -> None:
    images = np.arange(12.0).reshape(3, 2, 2)
    known = table_sha256({"image": images, "y": np.arange(3)})
    assert table_sha256({"y": np.arange(3)[::-1], "image": images[::-1]}) == known
    assert table_sha256({"image": images + 1, "y": np.arange(3)}) != known
