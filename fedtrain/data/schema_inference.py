"""Inferring a schema from a table: every fact in it is marked with its source."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.examples import Array
from fedtrain.data.schema import (
    Categories,
    Column,
    Missing,
    Moments,
    Range,
    Schema,
    Source,
)
from fedtrain.data.tables import (
    Table,
    column_of,
    is_missing,
    num_rows,
    numbers,
    table_of,
    texts,
)

MAX_CATEGORIES = 1000
_MAX_NUMERIC_CLASSES = 100
_MOST_CODES = 20


def infer_schema(  # noqa: PLR0913 - one argument for each part a column can play
    frame: Any,
    *,
    label: str,
    client: str | None = None,
    entity: str | None = None,
    weight: str | None = None,
    features: Sequence[str] | None = None,
    source: Source = "inferred",
    allow_missing: bool = True,
) -> Schema:
    """The schema that describes ``frame``.

    Numbers are standardised, texts become one-hot codes, arrays stay as they are
    (arrays of bytes, such as images, are scaled to [0, 1]). A label of texts, or of at
    most 100 different whole numbers, is a class.

    Args:
      frame: A data frame, or a mapping of arrays.
      label: The column to predict.
      client: The column with the id of a row's client; not a feature.
      entity: The column that identifies a customer or patient; not a feature.
      weight: The column with a row's weight; not a feature.
      features: The feature columns; by default all others.
      source: ``"inferred"``; ``"public"`` where ``frame`` is a public file.
      allow_missing: Whether a feature without a value in some row may be without one;
        False lets no value be missing, whatever ``frame`` holds.

    Raises:
      DataError: If a column is absent, or cannot be described.
    """
    table = table_of(frame)
    if num_rows(table) == 0:
        raise DataError("A schema cannot be inferred from a table without rows.")
    roles = [name for name in (client, entity, weight) if name is not None]
    for name in roles:
        column_of(table, name)
    others = [name for name in table if name not in (label, *roles)]
    chosen = list(features) if features is not None else others
    if not chosen:
        raise DataError("No column is left as a feature.")
    return Schema(
        features=tuple(
            _feature(table, name, source, allow_missing=allow_missing)
            for name in chosen
        ),
        label=_label(table, label, source),
        client=client,
        entity=entity,
        weight=weight,
    )


def _feature(table: Table, name: str, source: Source, *, allow_missing: bool) -> Column:
    values = column_of(table, name)
    if values.ndim > 1:
        return _array(name, values, source)
    is_allowed = allow_missing and bool(is_missing(values).any())
    missing = Missing(allowed=is_allowed, source=source)
    if values.dtype.kind in "biuf":
        return _number(name, values, source, missing)
    _refuse_stray_texts(name, values)
    return Column(
        name=name,
        kind="category",
        encoding="one_hot",
        missing=missing,
        categories=_categories(name, values, source),
    )


def _label(table: Table, name: str, source: Source) -> Column:
    values = column_of(table, name)
    if values.ndim > 1:
        return _array(name, values, source)
    if is_missing(values).any():
        row = int(np.flatnonzero(is_missing(values))[0])
        raise DataError(f"Row {row} has no label (column {name!r}).")
    if _is_number_to_predict(values):
        column = _number(name, values, source, Missing(allowed=False, source=source))
        return column.model_copy(update={"encoding": "keep"})
    return Column(
        name=name,
        kind="category",
        encoding="index",
        categories=_categories(name, values, source),
    )


def _is_number_to_predict(values: Array) -> bool:
    if values.dtype.kind not in "iuf":
        return False
    distinct = np.unique(values)
    return bool((distinct % 1 != 0).any()) or len(distinct) > _MAX_NUMERIC_CLASSES


def _number(name: str, values: Array, source: Source, missing: Missing) -> Column:
    real = numbers(values)
    real = real[np.isfinite(real)]
    if len(real) == 0:
        raise DataError(f"Column {name!r} has no value in any row; leave it out.")
    spread = float(real.std())
    return Column(
        name=name,
        kind="number",
        encoding="standardise",
        whole=bool((real == np.floor(real)).all()),
        missing=missing,
        range=Range(minimum=real.min(), maximum=real.max(), source=source),
        moments=Moments(mean=real.mean(), stddev=spread or 1.0, source=source),
    )


def _array(name: str, values: Array, source: Source) -> Column:
    if values.dtype.kind not in "biuf":
        raise DataError(f"Column {name!r} of arrays must hold numbers.")
    # Bytes are grey or colour values: their range is the type's, not the data's.
    is_image = values.dtype == np.uint8
    real = _finite(values)
    if real.size == 0:
        raise DataError(f"Column {name!r} has no finite number in any row.")
    low, high = (0, 255) if is_image else (real.min(), real.max())
    return Column(
        name=name,
        kind="array",
        encoding="min_max" if is_image else "keep",
        whole=values.dtype.kind in "biu",
        shape=values.shape[1:],
        range=Range(
            minimum=low, maximum=high, source="declared" if is_image else source
        ),
    )


def _finite(values: Array) -> Array:
    """The finite numbers of an array; the array itself, not a copy, if all are."""
    if values.dtype.kind in "biu":
        return values
    is_finite = np.isfinite(values)
    return values if is_finite.all() else values[is_finite]


def _refuse_stray_texts(name: str, values: Array) -> None:
    """One word among numbers would make a category of each number."""
    is_number = np.isfinite(numbers(values))
    rows = np.flatnonzero(~is_number & ~is_missing(values))
    few = 0 < len(rows) <= max(1, len(values) // 100)
    if not few or len(np.unique(texts(values)[is_number])) <= _MOST_CODES:
        return
    raise DataError(
        f"Row {rows[0]} (from 0) of column {name!r} is {str(values[rows[0]])!r}, but "
        f"{np.count_nonzero(is_number)} of {len(values)} rows hold numbers. Correct "
        "the row, leave its field empty, or leave the column out; if its numbers are "
        "codes, write a schema that lists them as categories (data.schema_path)."
    )


def _categories(name: str, values: Array, source: Source) -> Categories:
    distinct = set(texts(values)[~is_missing(values)].tolist())
    if len(distinct) > MAX_CATEGORIES:
        raise DataError(
            f"Column {name!r} has {len(distinct)} different texts, more than "
            f"{MAX_CATEGORIES}: leave it out of the features, or group its values."
        )
    return Categories(values=tuple(sorted(distinct, key=_order)), source=source)


def _order(text: str) -> tuple[bool, float, str]:
    try:
        return (False, float(text), text)
    except ValueError:
        return (True, 0.0, text)
