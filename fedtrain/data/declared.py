"""A population that is known by declaration only: who takes part, never their rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtrain.core import validate
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples, map_arrays
from fedtrain.data.schema import Column, Schema
from fedtrain.data.schema_encoding import encoded
from fedtrain.data.tables import Table
from fedtrain.data.tabular import facts


def declared_population(
    schema: Schema,
    client_ids: Sequence[str],
    *,
    rows_per_client: int,
    name: str = "declared",
) -> FederatedDataset:
    """Clients with as many rows as is declared, all of them one made-up row.

    It gives a run what it may know of rows that it never sees: their schema and public
    numbers. The rows take no memory, and training on them makes no sense.

    Args:
      schema: What every client's rows look like.
      client_ids: The clients' names.
      rows_per_client: A public number; privacy that counts units counts these.
      name: For messages and reports.
    """
    validate.positive_integer(rows_per_client=rows_per_client)
    row = encoded(_without_roles(schema), _one_row(schema))
    num_rows = rows_per_client * len(client_ids)
    return FederatedDataset(
        examples=Examples(
            features=map_arrays(lambda array: _repeated(array, num_rows), row.features),
            labels=_repeated(row.labels, num_rows),
        ),
        offsets=np.arange(len(client_ids) + 1, dtype=np.int64) * rows_per_client,
        client_ids=list(client_ids),
        sensitivity="private",
        name=name,
        info={**facts(schema), "declared": True},
    )


def _repeated(array: Array, num_rows: int) -> Array:
    return np.broadcast_to(array[:1], (num_rows, *array.shape[1:]))


def _without_roles(schema: Schema) -> Schema:
    return schema.model_copy(update={"client": None, "entity": None, "weight": None})


def _one_row(schema: Schema) -> Table:
    return {column.name: _value(column) for column in schema.columns}


def _value(column: Column) -> Any:
    if column.kind == "category":
        values = column.categories.values if column.categories else ("",)
        return np.array(values[:1], object)
    low = column.range.minimum if column.range else 0.0
    high = column.range.maximum if column.range else 0.0
    return np.full((1, *column.shape), min(max(0.0, low), high))
