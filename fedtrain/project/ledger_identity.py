"""The name under which all runs on the same private rows share one ledger."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from fedtrain.data.examples import Array
from fedtrain.data.fingerprint import data_sha256
from fedtrain.data.sets.split import DataSplit
from fedtrain.data.tables import table_of
from fedtrain.privacy.ledger import ledger_path
from fedtrain.project.build import Project
from fedtrain.project.config import DataSection


def ledger_identity(project: Project) -> str:
    """What names the ledger: where the rows are, or what they are.

    Nothing that a project file may freely choose is in it, such as the project's name:
    that would give the same rows a fresh budget.
    """
    given, path = project.given_data, project.config.data.path
    if isinstance(given, DataSplit):
        return f"rows {data_sha256(given.train)}"
    if given is not None:
        return f"table {table_sha256(given)}"
    if path is None:
        return project.split.train.name
    return file_identity(path, project.folder)


def ledgers_of_test_rows(data: DataSection, folder: Path) -> tuple[Path, ...]:
    """The ledger of private test rows that lie in a file of their own."""
    if data.test_path is None:
        return ()
    identity = file_identity(data.test_path, folder)
    return (ledger_path(dataset_name=identity, is_private=True),)


def table_sha256(table: Any) -> str:
    """SHA-256 of the rows of a table, in whatever order rows and columns come."""
    columns = dict(sorted(table_of(table).items()))
    frame = pd.DataFrame({name: _scalars(array) for name, array in columns.items()})
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    names = "\0".join(columns).encode()
    return hashlib.sha256(names + b"\0" + np.sort(rows).tobytes()).hexdigest()


def _scalars(array: Array) -> Array:
    if array.ndim == 1:
        return array
    rows = np.empty(len(array), object)
    rows[:] = [row.tobytes() for row in array]
    return rows


def file_identity(path: str, folder: Path) -> str:
    """A path from the root; a URL by host and path, without user, driver or query."""
    if "://" not in path:
        return str((folder / path).resolve())
    url = urlsplit(path)
    scheme = url.scheme.lower().partition("+")[0]
    host = url.netloc.rpartition("@")[2].lower()
    return f"{scheme}://{host}{url.path.rstrip('/')}"
