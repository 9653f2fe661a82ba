"""The clients' rows and the test rows, from a project file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data import partition, sets
from fedtrain.data.dataset import FederatedDataset, Sensitivity
from fedtrain.data.partition import Partition
from fedtrain.data.readers.read import from_dataframe, read
from fedtrain.data.repartition import repartitioned
from fedtrain.data.schema import Schema, load_schema
from fedtrain.data.schema_check import missing_values
from fedtrain.data.sets.split import DataSplit
from fedtrain.data.tabular import require_declared, schema_of
from fedtrain.project.config import DataSection, ProjectConfig
from fedtrain.project.rows import check_rows, divided

IN_MEMORY = "a table in memory"
_ALLOWED = "A schema that allows it for the column adds an indicator to the features: "
MISSING_IN_FILE = (
    f"{_ALLOWED}`fedtrain data describe --schema schema.json` writes one, "
    "data.schema_path uses it."
)
_OF_A_TABLE = (
    f'{_ALLOWED}infer_schema(...).save("schema.json") writes one, data_keys='
    '{"schema_path": "schema.json"} uses it.'
)
_PARTITION_KEYS = ("num_clients", "concentration", "num_labels", "column", "num_bands")


def split_of(
    config: ProjectConfig,
    *,
    folder: Path,
    given: Any = None,
    allow_missing: bool = False,
) -> DataSplit:
    """The data of ``[data]``, or ``given`` in its place; every row checked.

    Args:
      config: The whole configuration: privacy decides what may be inferred.
      folder: Where relative paths start.
      given: A ``DataSplit``, or a table (a pandas DataFrame) in place of ``path``.
      allow_missing: Whether a schema that is inferred lets values be missing.

    Raises:
      DataError: Naming client, row, column and value.
      PrivacyError: Where privacy rests on bounds inferred from private data.
    """
    data = config.data
    if isinstance(given, DataSplit):
        split = given
    elif data.name is not None and given is None:
        split = _named_set(config)
    else:
        with missing_values(MISSING_IN_FILE if given is None else _OF_A_TABLE):
            split = _own_rows(config, folder, given, allow_missing=allow_missing)
    if config.privacy is not None:
        require_declared(split.train)
    check_rows(split)
    return split


def partition_of(data: DataSection) -> Partition | None:
    """The partition that ``[data]`` describes; None where rows have clients already."""
    if data.partition is None:
        return None
    given = {key: getattr(data, key) for key in _PARTITION_KEYS}
    options = {key: value for key, value in given.items() if value is not None}
    return partition.named(data.partition, **options)


def read_rows(source: Any, **options: Any) -> FederatedDataset:
    """The rows of a file or of a table in memory; options as those of ``read``."""
    if isinstance(source, str | Path):
        return read(source, **options)
    return from_dataframe(source, **options)


def split_from(
    train: FederatedDataset, test: FederatedDataset, *, source: str
) -> DataSplit:
    """A split of rows that were read from a file or table."""
    info = train.info
    known = info.get("num_classes")
    labels = train.examples.labels
    whole = labels.dtype.kind in "iu" and labels.ndim == 1 and len(labels)
    return DataSplit(
        train=train,
        test=test.examples,
        test_clients=test if test.examples.num_examples else None,
        num_classes=known or (int(labels.max()) + 1 if whole else 1),
        label_names=tuple(info.get("label_names") or ()),
        feature_names=tuple(info.get("feature_names") or ()),
        source=source,
    )


def _named_set(config: ProjectConfig) -> DataSplit:
    data = config.data
    split = sets.load(
        data.name or "",
        seed=config.seed,
        partition=partition_of(data),
        **data.options,
    )
    if data.sensitivity is None:
        return split
    return _with_sensitivity(split, data.sensitivity)


def _own_rows(
    config: ProjectConfig, folder: Path, given: Any, *, allow_missing: bool
) -> DataSplit:
    data = config.data
    if given is None and data.path == IN_MEMORY:
        raise ConfigError(
            "The rows of this run were a table in memory; only a program that has them "
            "can go on with it, or score its test rows again."
        )
    source = _located(data.path or "", folder) if given is None else given
    rows = read_rows(
        source,
        label=data.label,
        client=data.client,
        entity=data.entity,
        weight=data.weight,
        features=data.features,
        schema=_schema(data, folder),
        sensitivity=data.sensitivity or "private",
        allow_missing=allow_missing,
        **data.options,
    )
    if data.sensitivity is not None:  # a packed folder says it by itself
        rows = replace(rows, sensitivity=data.sensitivity)
    _refuse_public_share(data, rows)
    if config.privacy is not None and rows.sensitivity == "private":
        _refuse_counted_labels(rows)
    chosen = partition_of(data)
    seed = seeds.derive(seeds.root(config.seed), "data")
    if chosen is not None:
        rows = repartitioned(rows, chosen, seed=seed)
    if data.test_path is None:
        train, test = divided(rows, data.test_fraction or 0.0, seed)
    else:
        test_source = _located(data.test_path, folder)
        train, test = rows, read_rows(test_source, schema=schema_of(rows), name="test")
    return split_from(train, test, source=data.path or IN_MEMORY)


def _refuse_counted_labels(rows: FederatedDataset) -> None:
    whole = rows.examples.labels.dtype.kind in "iu" and rows.examples.labels.ndim == 1
    if whole and rows.info.get("num_classes") is None:
        raise PrivacyError(
            f"How many labels {rows.name} has would be taken from its largest label, "
            "which is private. Declare it: in a schema (data.schema_path), or, for "
            "packed rows, as num_classes in the info of the data set that is packed."
        )


def _refuse_public_share(data: DataSection, rows: FederatedDataset) -> None:
    private = rows.sensitivity == "private" and data.test_path is None
    if private and data.test_sensitivity == "public":
        raise PrivacyError(
            'data.test_sensitivity is "public", but the test rows are a share of '
            f"private rows ({rows.name}, data.test_fraction), and so private too. "
            "Give public test rows as data.test_path, or leave test_sensitivity out."
        )


def _schema(data: DataSection, folder: Path) -> Schema | None:
    if data.schema_path is None:
        return None
    return load_schema(_located(data.schema_path, folder))


def _with_sensitivity(split: DataSplit, sensitivity: Sensitivity) -> DataSplit:
    return replace(split, train=replace(split.train, sensitivity=sensitivity))


def _located(path: str, folder: Path) -> str:
    return path if "://" in path else str(folder / path)
