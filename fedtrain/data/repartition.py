"""Dividing the rows of a data set afresh, as for a simulation on one's own file."""

from dataclasses import replace

import numpy as np

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array
from fedtrain.data.partition import Partition, by_column, partitioned
from fedtrain.data.schema_encoding import decoded
from fedtrain.data.tabular import schema_of


def repartitioned(
    dataset: FederatedDataset, partition: Partition, *, seed: seeds.Seed | int
) -> FederatedDataset:
    """All rows of ``dataset`` over new clients; its facts stay.

    ``by_column("age")`` finds the column among the encoded features by its own name.
    """
    if partition.column is not None and not isinstance(dataset.examples.features, dict):
        values = _values(dataset, partition.column)
        found = by_column(values, num_bands=partition.num_bands)
        partition = found._replace(description=partition.description)
    divided = partitioned(
        dataset.examples,
        partition,
        seed=seed,
        sensitivity=dataset.sensitivity,
        name=dataset.name,
    )
    return replace(divided, info={**dataset.info, **divided.info})


def _values(dataset: FederatedDataset, column: str) -> Array:
    names = tuple(dataset.info.get("feature_names", ()))
    features = np.asarray(dataset.examples.features)
    codes = [i for i, name in enumerate(names) if name.startswith(f"{column}=")]
    if codes:
        values = np.array([names[i].removeprefix(f"{column}=") for i in codes])
        return values[features[:, codes].argmax(axis=1)]
    if column not in names:
        raise ConfigError(
            f"by_column: there is no feature {column!r}; there are: "
            f"{', '.join(names) or 'none with a name'}."
        )
    return _in_own_unit(dataset, column, features[:, names.index(column)])


def _in_own_unit(dataset: FederatedDataset, column: str, values: Array) -> Array:
    schema = schema_of(dataset)
    described = (
        [] if schema is None else [c for c in schema.features if c.name == column]
    )
    return decoded(described[0], values) if described else values
