"""Holding every client's rows to the schema; an error names where the trouble is.

The values quoted are shown where the data are; they are never part of anything shared.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from fedtrain.core.errors import DataError, MissingValueError
from fedtrain.data.examples import Array
from fedtrain.data.schema import Column, Schema
from fedtrain.data.tables import Table, is_missing, num_rows, numbers, texts

_MISSING = "a value is missing"
_IN_PYTHON = (
    "A schema that allows it for the column adds an indicator to the features; "
    "infer_schema makes one, and so does allow_missing=True where none is given."
)


class Problem(NamedTuple):
    """The first row of a column that breaks the schema.

    Attributes:
      row: From 0, in the table as given.
      column: Its name.
      value: What is there.
      reason: What is wrong, and what is allowed.
      num_rows: In how many rows of the column it is so.
    """

    row: int
    column: str
    value: str
    reason: str
    num_rows: int


def check(schema: Schema, table: Table, *, where: str = "the data") -> None:
    """Checks all columns of all rows.

    Args:
      schema: What the columns should hold.
      table: Columns by name.
      where: The file or client, for the error.

    Raises:
      DataError: Naming client, row, column and value, and how many more there are; a
        ``MissingValueError`` where a value is missing.
    """
    absent = [name for name in _needed(schema) if name not in table]
    if absent:
        raise DataError(
            f"{where} has no column {absent[0]!r} (the schema wants "
            f"{', '.join(absent)}); it has: {', '.join(table) or 'none'}."
        )
    found = problems(schema, table)
    if not found:
        return
    message = _message(schema, table, found, where)
    if _earliest(found).reason == _MISSING:
        raise MissingValueError(message, _IN_PYTHON)
    raise DataError(message)


@contextmanager
def missing_values(way_out: str) -> Iterator[None]:
    """Says ``way_out`` with a missing value, in place of what a program would do."""
    try:
        yield
    except MissingValueError as error:
        raise MissingValueError(error.found, way_out) from error


def problems(schema: Schema, table: Table) -> list[Problem]:
    """The first problem of each column that has one; none where there are no rows."""
    if num_rows(table) == 0:
        return []
    label = schema.label
    found = [_first(column, table[column.name]) for column in schema.features]
    found.append(_first(label, table[label.name], missing_reason="a label is missing"))
    found += [_first_missing(name, table[name]) for name in _ids(schema)]
    if schema.weight is not None:
        found.append(_bad_weight(schema.weight, table[schema.weight]))
    return [problem for problem in found if problem is not None]


def _first(
    column: Column, values: Array, *, missing_reason: str = _MISSING
) -> Problem | None:
    if column.kind == "array":
        return _first_in_array(column, values)
    missing = is_missing(values)
    if not column.missing.allowed and missing.any():
        return _problem(column.name, values, missing, missing_reason)
    if column.kind == "category":
        return _first_category(column, values, missing)
    return _first_number(column, values, missing)


def _first_category(column: Column, values: Array, missing: Array) -> Problem | None:
    if column.categories is None:
        return None
    allowed = column.categories.values
    unknown = ~np.isin(texts(values), allowed) & ~missing
    listed = ", ".join(repr(value) for value in allowed[:10])
    more = f" and {len(allowed) - 10} more" if len(allowed) > 10 else ""
    reason = f"it is not one of the {column.categories.source} {listed}{more}"
    return _problem(column.name, values, unknown, reason)


def _first_number(column: Column, values: Array, missing: Array) -> Problem | None:
    real = numbers(values)
    no_number = ~np.isfinite(real) & ~missing
    if no_number.any():
        return _problem(column.name, values, no_number, "it is not a finite number")
    if column.whole and ((real % 1 != 0) & ~missing).any():
        broken = (real % 1 != 0) & ~missing
        return _problem(column.name, values, broken, "it is not a whole number")
    return _out_of_range(column, values, real)


def _first_in_array(column: Column, values: Array) -> Problem | None:
    if values.shape[1:] != column.shape:
        every = np.ones(len(values), bool)
        reason = f"a row has shape {values.shape[1:]}, not {column.shape}"
        return _problem(column.name, values, every, reason)
    if values.dtype.kind not in "biuf":
        every = np.ones(len(values), bool)
        return _problem(column.name, values, every, "it does not hold numbers")
    flat = values.reshape(len(values), -1)
    broken = ~np.isfinite(flat).all(axis=1)
    if broken.any():
        return _problem(column.name, values, broken, "it holds NaN or an infinity")
    return _out_of_range(column, values, flat)


def _out_of_range(column: Column, values: Array, real: Array) -> Problem | None:
    if column.range is None:
        return None
    low, high, source = column.range.minimum, column.range.maximum, column.range.source
    outside = ((real < low) | (real > high)).reshape(len(real), -1).any(axis=1)
    reason = f"it is outside the {source} range {low:g} to {high:g}"
    return _problem(column.name, values, outside, reason)


def _first_missing(name: str, values: Array) -> Problem | None:
    return _problem(name, values, is_missing(values), "an id is missing")


def _bad_weight(name: str, values: Array) -> Problem | None:
    real = numbers(values)
    broken = ~np.isfinite(real) | (real < 0)
    return _problem(name, values, broken, "a weight must be a number of at least 0")


def _problem(name: str, values: Array, broken: Array, reason: str) -> Problem | None:
    rows = np.flatnonzero(broken)
    if len(rows) == 0:
        return None
    row = int(rows[0])
    value = repr(
        values[row].item()
        if values.ndim == 1 and values.dtype != object
        else values[row]
    )
    return Problem(row, name, value[:80], reason, len(rows))


def _earliest(found: list[Problem]) -> Problem:
    return min(found, key=lambda problem: problem.row)


def _message(schema: Schema, table: Table, found: list[Problem], where: str) -> str:
    first = _earliest(found)
    client = ""
    if schema.client is not None:
        client = f" client {str(table[schema.client][first.row])!r},"
    others = sum(problem.num_rows for problem in found) - 1
    more = f" There are {others} more such values." if others else ""
    return (
        f"{where}:{client} row {first.row} of {num_rows(table)} (from 0), column "
        f"{first.column!r}, value {first.value}: {first.reason}. Correct the data or "
        f"the schema.{more}"
    )


def _ids(schema: Schema) -> list[str]:
    return [name for name in (schema.client, schema.entity) if name is not None]


def _needed(schema: Schema) -> list[str]:
    named = [column.name for column in schema.columns] + _ids(schema)
    return named + ([schema.weight] if schema.weight is not None else [])
