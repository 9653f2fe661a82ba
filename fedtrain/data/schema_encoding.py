"""From a checked table to the arrays a model takes."""

import hashlib
from typing import Any

import numpy as np

from fedtrain.data.examples import Array, Examples
from fedtrain.data.schema import Column, Schema
from fedtrain.data.tables import Table, is_missing, numbers, texts

COLUMNS = "columns"


def encoded(schema: Schema, table: Table) -> Examples:
    """The rows of ``table``, which has passed ``check``.

    Numbers and categories together become float32 [rows, columns]. An array column is
    an input of its own: alone it is the features, otherwise features are a dict with
    the inputs ``"columns"`` and the arrays' names. A class is an int32 code, a number
    to predict float32. An entity id becomes a number that depends on its text alone.
    """
    weights = None if schema.weight is None else numbers(table[schema.weight])
    return Examples(
        features=_features(schema, table),
        labels=_label(schema.label, table[schema.label.name]),
        weights=None if weights is None else weights.astype(np.float32),
        entity_ids=None if schema.entity is None else _codes(table[schema.entity]),
    )


def feature_names(schema: Schema) -> tuple[str, ...]:
    """The names of the encoded columns, in order; without array columns."""
    return tuple(
        name
        for column in schema.features
        if column.kind != "array"
        for name in _encoded_names(column)
    )


def decoded(column: Column, values: Array) -> Array:
    """Encoded numbers of ``column`` in its own unit again, to six digits."""
    own = values.astype(np.float64)
    if column.encoding == "standardise" and column.moments is not None:
        own = own * column.moments.stddev + column.moments.mean
    if column.encoding == "min_max" and column.range is not None:
        width = column.range.maximum - column.range.minimum
        own = own * (width or 1.0) + column.range.minimum
    if column.whole:
        return np.round(own).astype(np.int64)
    return np.array([float(f"{value:.6g}") for value in own])


def _features(schema: Schema, table: Table) -> Any:
    scalars = [column for column in schema.features if column.kind != "array"]
    inputs = {
        column.name: _plain(column, table[column.name])
        for column in schema.features
        if column.kind == "array"
    }
    if scalars:
        parts = [_columns(column, table[column.name]) for column in scalars]
        inputs[COLUMNS] = np.concatenate(parts, axis=1).astype(np.float32)
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))


def _columns(column: Column, values: Array) -> Array:
    missing = is_missing(values)
    if column.kind == "category":
        codes = texts(values)[:, np.newaxis] == _categories(column)
        parts = [codes & ~missing[:, np.newaxis]]
    else:
        scaled = np.where(missing, 0.0, _scaled(column, numbers(values)))
        parts = [scaled[:, np.newaxis]]
    if column.missing.allowed:
        parts.append(missing[:, np.newaxis])
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _scaled(column: Column, values: Array) -> Array:
    if column.encoding == "standardise" and column.moments is not None:
        return (values - column.moments.mean) / column.moments.stddev
    if column.encoding == "min_max" and column.range is not None:
        width = column.range.maximum - column.range.minimum
        return (values - column.range.minimum) / (width or 1.0)
    return values


def _encoded_names(column: Column) -> tuple[str, ...]:
    names: tuple[str, ...] = (column.name,)
    if column.kind == "category":
        names = tuple(f"{column.name}={value}" for value in _categories(column))
    return (*names, f"{column.name} is missing") if column.missing.allowed else names


def _label(column: Column, values: Array) -> Array:
    if column.kind == "array":
        return _plain(column, values)
    if column.kind == "number":
        return numbers(values).astype(np.float32)
    categories = _categories(column)
    order = np.argsort(categories)
    return order[np.searchsorted(categories, texts(values), sorter=order)].astype(
        np.int32
    )


def _plain(column: Column, values: Array) -> Array:
    if column.encoding == "keep" and column.whole:
        return values.astype(np.int32)
    return _scaled(column, values).astype(np.float32)


def _codes(values: Array) -> Array:
    """A number for each id, the same in every call: a person may be at two clients."""
    unique, places = np.unique(texts(values), return_inverse=True)
    return np.array([_code(text) for text in unique], np.int64)[places.reshape(-1)]


def _code(text: str) -> int:
    digest = hashlib.blake2b(str(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _categories(column: Column) -> Array:
    return np.array(column.categories.values if column.categories else (), dtype=str)
