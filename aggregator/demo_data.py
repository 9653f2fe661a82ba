"""What the demo federates: three partners' files, public test rows, one schema."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedtrain.core.files import write_atomically
from fedtrain.data import sets
from fedtrain.data.examples import Examples
from fedtrain.data.partition import iid
from fedtrain.data.schema import Range, Schema
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.sets.files import VARIABLE
from fedtrain.data.sets.split import DataSplit
from fedtrain.data.tables import table_of

PARTNERS = ("bank-a", "bank-b", "bank-c")
CLINICS = ("clinic-a", "clinic-b", "clinic-c", "clinic-d", "clinic-e")
LABEL = "label"
# Of a project whose files are those that are written here.
DATA_AND_MODEL = """\
[data]
path = "partners"            # each partner's own rows, which only it has
schema_path = "schema.json"  # what all of them look like
test_path = "test.csv"       # public rows that the operator scores models on
test_sensitivity = "public"
sensitivity = "private"

[model]
name = "dense_classifier"
hidden = [32]"""
_CLIP = 5.0


class Settings(NamedTuple):
    """What of the project file depends on the data.

    Attributes:
      rows_per_client: Declared, below what every partner has.
      sampling_rate: Of rows, in each local step.
      expected_batch_size: The public denominator of a step.
      local_steps: In a round.
      delta: Below one over a partner's rows.
      learning_rate: Of the clients.
    """

    rows_per_client: int
    sampling_rate: float
    expected_batch_size: float
    local_steps: int
    delta: float
    learning_rate: float


class DemoData(NamedTuple):
    """Where the demo's rows lie, and what fits them.

    Attributes:
      name: Of the data set, in words.
      files: Each partner's file, by its id.
      settings: For the project file.
    """

    name: str
    files: dict[str, Path]
    settings: Settings


def write_demo_data(folder: Path) -> DemoData:
    """Writes ``test.csv``, ``schema.json`` and one file for each partner.

    FATE's three parties of credit card clients where ``FEDTRAIN_DATA_DIR`` has them,
    else scikit-learn's breast cancer rows dealt to three clinics at random. Both are
    public, so the schema may be read off the test rows.
    """
    split, name, settings = _chosen()
    return DemoData(name, _written(folder, split, PARTNERS), settings)


def write_clinics_data(folder: Path) -> str:
    """Writes the same for five clinics, of the breast cancer rows; gives their name."""
    split = sets.load("breast_cancer", seed=0, partition=iid(num_clients=len(CLINICS)))
    _written(folder, split, CLINICS)
    return "breast cancer rows (scikit-learn), dealt to five clinics"


def _written(
    folder: Path, split: DataSplit, partners: Sequence[str]
) -> dict[str, Path]:
    """Public test rows, schema, and each partner's file."""
    columns = [f"x{i}" for i in range(split.feature_shape[0])]
    test = _frame(split.test, columns)
    test.to_csv(folder / "test.csv", index=False)
    _schema(test).save(folder / "schema.json")
    files = {}
    for position, partner in enumerate(partners):
        files[partner] = folder / f"{partner}.csv"
        frame = _frame(split.train.client(position), columns)
        write_atomically(files[partner], frame.to_csv(index=False))
    return files


def _chosen() -> tuple[DataSplit, str, Settings]:
    given = os.environ.get(VARIABLE)
    if given and (Path(given) / "default_credit").is_dir():
        split = sets.load("credit_default", seed=0)
        return split, "FATE's three parties of credit card clients", _CREDIT
    split = sets.load("breast_cancer", seed=0, partition=iid(num_clients=3))
    return split, "breast cancer rows (scikit-learn), dealt to three clinics", _CANCER


def _schema(test: Any) -> Schema:
    """Read off the public test rows, but for the ranges: those are declared."""
    read_off = infer_schema(table_of(test), label=LABEL).with_source("public")
    bounds = Range(minimum=-_CLIP, maximum=_CLIP, source="declared")
    features = [one.model_copy(update={"range": bounds}) for one in read_off.features]
    return read_off.model_copy(update={"features": tuple(features)})


def _frame(examples: Examples, columns: list[str]) -> Any:
    rows = np.clip(examples.features.astype(np.float64), -_CLIP, _CLIP).round(6)
    frame = pd.DataFrame(rows, columns=columns)
    frame[LABEL] = examples.labels
    return frame


_CREDIT = Settings(8000, 0.032, 256.0, 30, 1e-5, 0.5)
_CANCER = Settings(150, 0.2, 30.0, 10, 1e-3, 0.5)
