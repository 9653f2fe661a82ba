"""One function for every source: a file, many files, a URL, a database, TFF data."""

import importlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError, DataError
from fedtrain.data.dataset import FederatedDataset, Sensitivity
from fedtrain.data.packed import open_packed
from fedtrain.data.packed_writer import HEADER
from fedtrain.data.readers.joining import CLIENT_COLUMN, joined
from fedtrain.data.readers.storage import expanded, is_pattern
from fedtrain.data.schema import Schema, load_schema
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import Table, num_rows, table_of
from fedtrain.data.tabular import from_table

FORMATS = ("csv", "hdf5", "npz", "parquet", "sql", "tfrecord")
_ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npz": "npz",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}


def read(  # noqa: PLR0913 - one argument for each part a column can play
    source: str | Path,
    *,
    label: str | None = None,
    client: str | None = None,
    entity: str | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    schema: Schema | str | Path | None = None,
    sensitivity: Sensitivity = "private",
    name: str | None = None,
    allow_missing: bool = False,
    **options: Any,
) -> FederatedDataset:
    """The clients and rows in ``source``.

    Args:
      source: A path or fsspec URL of a CSV, Parquet, npz, TFRecord or TFF HDF5 file; a
        pattern with ``*`` (without a client column each file is a client, named after
        it); a SQLAlchemy URL with ``query`` or ``table_name``; or a packed folder,
        which is opened as it is.
      label: The column to predict.
      client: The column with the id of a row's client.
      entity: The column that identifies a customer or patient.
      weight: The column with a row's weight in the loss.
      features: The feature columns; by default all others.
      schema: A schema or its file, which then says what the columns are; without one
        it is inferred.
      sensitivity: ``"private"`` unless you know better.
      name: For reports; by default the file's name.
      allow_missing: Whether an inferred schema lets values be missing; see
        ``from_dataframe``.
      **options: ``format`` where the name does not tell it; ``query`` or
        ``table_name`` for SQL; ``separator`` for CSV.

    Raises:
      DataError: Naming the file, client, row, column and value, or what is wrong with
        the file.
    """
    if (Path(source) / HEADER).is_file():
        return open_packed(source)
    known = schema if isinstance(schema, Schema | None) else load_schema(schema)
    texts = _text_columns(known, client, entity)
    tables = client_tables(source, text_columns=texts, **options)
    by_file = _is_by_file(source, **options)
    keeps_ids = client in (None, CLIENT_COLUMN)
    table = dict(_one_table(tables, by_file=by_file, keeps_ids=keeps_ids))
    if client is None and known is None and CLIENT_COLUMN in table:
        client = CLIENT_COLUMN
    dataset = from_dataframe(
        table,
        label=label,
        client=client,
        entity=entity,
        weight=weight,
        features=features,
        schema=known,
        sensitivity=sensitivity,
        name=_shown(source, **options),
        allow_missing=allow_missing,
        client_ids=_empty(tables) if client == CLIENT_COLUMN else (),
    )
    return replace(dataset, name=name or _name(source))


def from_dataframe(  # noqa: PLR0913 - one argument for each part a column can play
    frame: Any,
    *,
    label: str | None = None,
    client: str | None = None,
    entity: str | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    schema: Schema | None = None,
    sensitivity: Sensitivity = "private",
    name: str = "dataframe",
    client_ids: Sequence[str] = (),
    allow_missing: bool = False,
) -> FederatedDataset:
    """The clients and rows in a data frame (or a mapping of arrays).

    Args:
      frame: One row for each example.
      label: The column to predict.
      client: The column with the id of a row's client; without one, all rows belong to
        one client, ``"all"``.
      entity: The column that identifies a customer or patient.
      weight: The column with a row's weight in the loss.
      features: The feature columns; by default all others.
      schema: Says what the columns are; without one it is inferred.
      sensitivity: ``"private"`` unless you know better.
      name: For messages and reports.
      client_ids: Clients that may have no rows here; they are kept, empty.
      allow_missing: Whether an inferred schema lets values be missing. By default such
        a row is refused: only ``schema`` can say that it is meant to be so.

    Raises:
      DataError: Naming client, row, column and value.
    """
    table = table_of(frame)
    roles = {"label": label, "client": client, "entity": entity, "weight": weight}
    if schema is None:
        labelled = _with_label(roles, table)
        try:
            schema = infer_schema(
                table, **labelled, features=features, allow_missing=allow_missing
            )
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    else:
        _agrees(schema, roles)
    return from_table(
        table, schema, sensitivity=sensitivity, name=name, client_ids=client_ids
    )


def read_table(source: str | Path, **options: Any) -> Table:
    """The columns of ``source`` by name, unchecked; see ``read``.

    Where ``source`` is a pattern, the column ``"client_id"`` names each row's file.
    """
    by_file = _is_by_file(source, **options)
    return _one_table(client_tables(source, **options), by_file=by_file, keeps_ids=True)


def client_tables(
    source: str | Path,
    *,
    text_columns: Mapping[str, Collection[str] | None] | None = None,
    format: str | None = None,
    **options: Any,
) -> list[tuple[str, Table]]:
    """The columns of each file that ``source`` names, with the file's name.

    ``text_columns`` is as for ``fedtrain.data.readers.csv.table``.
    """
    given = str(source)
    is_sql = _is_sql(format, **options)
    files = [given] if is_sql else expanded(given)
    kind = "sql" if is_sql else format or _format_of(files[0])
    validate.one_of(FORMATS, format=kind)
    reader = importlib.import_module(f"fedtrain.data.readers.{kind}").table
    _check_options(kind, reader, options)
    names = [_name(file) for file in files]
    if len(set(names)) < len(names):
        raise DataError(
            f"Two files that {given!r} names have the same name ({', '.join(names)}), "
            "which would be one client; rename one, or use a client column."
        )
    read_one = partial(reader, text_columns=text_columns, **options)
    return [(name, read_one(file)) for name, file in zip(names, files, strict=True)]


def _is_by_file(source: str | Path, **options: Any) -> bool:
    return is_pattern(str(source)) and not _is_sql(**options)


def _is_sql(format: str | None = None, **options: Any) -> bool:
    return format == "sql" or bool({"query", "table_name"} & set(options))


def _shown(source: str | Path, **options: Any) -> str:
    """What an error calls it; the URL of a database may hold a password."""
    return _name(source) if _is_sql(**options) else str(source)


def _one_table(
    tables: list[tuple[str, Table]], *, by_file: bool, keeps_ids: bool
) -> Table:
    first = tables[0][1]
    # A pattern names its files whether it matches one today or several.
    if not by_file or (len(tables) == 1 and CLIENT_COLUMN in first):
        return first
    table = joined(tables)
    if keeps_ids:
        return table
    return {name: column for name, column in table.items() if name != CLIENT_COLUMN}


def _empty(tables: list[tuple[str, Table]]) -> list[str]:
    empty = [name for name, table in tables if num_rows(table) == 0]
    return empty if len(tables) > 1 else []


def _format_of(source: str) -> str:
    endings = Path(source).suffixes
    found = [_ENDINGS[ending] for ending in endings if ending in _ENDINGS]
    if not found:
        raise ConfigError(
            f"The format of {source!r} is not known from its name; give format= one of "
            f"{', '.join(FORMATS)}."
        )
    return found[-1]


def _check_options(kind: str, reader: Any, options: dict[str, Any]) -> None:
    allowed = sorted(set(inspect.signature(reader).parameters) - {"text_columns"})[1:]
    for option, value in options.items():
        if option not in inspect.signature(reader).parameters:
            raise ConfigError(
                f"Reading {kind} has no option {option!r} (got {value!r}); it has: "
                f"{', '.join(allowed) or 'none'}."
            )


def _agrees(schema: Schema, roles: dict[str, str | None]) -> None:
    said = {
        "label": schema.label.name,
        "client": schema.client,
        "entity": schema.entity,
        "weight": schema.weight,
    }
    for role, column in roles.items():
        if column is not None and column != said[role]:
            raise ConfigError(
                f"{role}={column!r}, but the schema says {said[role]!r}; leave the "
                "argument out, or correct the schema."
            )


def _with_label(roles: dict[str, str | None], table: Table) -> dict[str, Any]:
    label = roles["label"] or ("labels" if "labels" in table else None)
    if label is None:
        raise ConfigError(
            f"label is needed: the column to predict, one of {', '.join(table)}."
        )
    return {**roles, "label": label}


def _text_columns(
    schema: Schema | None, client: str | None, entity: str | None
) -> dict[str, Collection[str] | None]:
    """Columns to read as texts; of those that may be missing, with all their texts."""
    named = {client, entity}
    found: dict[str, Collection[str] | None] = {}
    if schema is not None:
        named |= {schema.client, schema.entity}
        for column in schema.features:
            if column.kind == "category":
                listed = column.categories.values if column.categories else None
                found[column.name] = listed if column.missing.allowed else None
    return found | {column: None for column in named if column is not None}


def _name(source: str | Path) -> str:
    # What comes after a URL's scheme and before its query names the data well enough.
    stem = Path(str(source).split("?")[0]).name
    return stem.split(".")[0] or str(source)
