"""Federated data sets from tables: infer or take a schema, check, encode, group."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset, Sensitivity
from fedtrain.data.examples import Examples
from fedtrain.data.partition import grouped
from fedtrain.data.schema import Schema, parsed
from fedtrain.data.schema_check import check
from fedtrain.data.schema_encoding import encoded, feature_names
from fedtrain.data.tables import Table, num_rows, texts


def from_table(
    table: Table,
    schema: Schema,
    *,
    sensitivity: Sensitivity = "private",
    name: str = "dataset",
    client_ids: Sequence[str] = (),
) -> FederatedDataset:
    """A data set of the rows of ``table``, checked against and encoded by ``schema``.

    Clients are ordered by id. Without a client column all rows are those of one client,
    ``"all"``, and can be divided by a partition. ``client_ids`` names clients that may
    have no rows here; they are kept, empty.

    Raises:
      DataError: Naming client, row, column and value.
    """
    check(schema, table, where=name)
    if num_rows(table) == 0:
        raise DataError(f"{name} has no rows.")
    examples = encoded(schema, table)
    ids = np.full(num_rows(table), "all")
    if schema.client is not None:
        ids = texts(table[schema.client])
    names = np.unique([*ids.tolist(), *client_ids])
    federated = grouped(
        examples, np.searchsorted(names, ids), names=names, info=facts(schema)
    )
    return replace(federated, sensitivity=sensitivity, name=name)


def client_examples(table: Table, schema: Schema, *, client_id: str) -> Examples:
    """One client's checked and encoded rows; for packing clients one by one."""
    check(schema, table, where=f"client {client_id!r}")
    return encoded(schema, table)


def facts(schema: Schema) -> dict[str, Any]:
    """What a data set's ``info`` says about its columns, as plain values."""
    return {
        "schema": schema.as_dict(),
        "schema_sha256": schema.hash,
        "feature_names": feature_names(schema),
        "label_names": schema.label_names,
        "num_classes": schema.num_classes,
    }


def schema_of(dataset: FederatedDataset) -> Schema | None:
    """The schema that ``dataset`` was encoded by; None where it was made otherwise."""
    content = dataset.info.get("schema")
    return (
        None if content is None else parsed(content, where=f"{dataset.name}'s schema")
    )


def require_declared(dataset: FederatedDataset) -> None:
    """Refuses private data that were encoded by facts inferred from them.

    Raises:
      PrivacyError: Listing the columns; nothing for public data or without a schema.
    """
    schema = schema_of(dataset)
    if dataset.sensitivity == "private" and schema is not None:
        schema.require_declared()
