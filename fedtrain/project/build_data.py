"""The clients' rows and the test rows, from a project file."""

from pathlib import Path
from typing import Any

from fedtrain.data import partition, sets
from fedtrain.data.partition import Partition
from fedtrain.data.sets.split import DataSplit
from fedtrain.project.config import DataSection, ProjectConfig

_PARTITION_KEYS = ("num_clients", "concentration", "num_labels", "column", "num_bands")


def split_of(config: ProjectConfig, *, folder: Path, given: Any = None) -> DataSplit:
    """The data of ``[data]``, or ``given`` in its place."""
    if isinstance(given, DataSplit):
        return given
    data = config.data
    return sets.load(
        data.name or "",
        seed=config.seed,
        partition=partition_of(data),
        **data.options,
    )


def partition_of(data: DataSection) -> Partition | None:
    """The partition that ``[data]`` describes; None where rows have clients already."""
    if data.partition is None:
        return None
    given = {key: getattr(data, key) for key in _PARTITION_KEYS}
    options = {key: value for key, value in given.items() if value is not None}
    return partition.named(data.partition, **options)
