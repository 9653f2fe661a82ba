"""Slices of public rows by named columns: each category, or bands of a number."""

from collections.abc import Iterator, Sequence

import numpy as np

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Array
from fedtrain.data.schema_encoding import COLUMNS, decoded
from fedtrain.export.scores import Slice
from fedtrain.export.source import Source

_MOST_VALUES = 12
_BANDS = 4


def column_slices(source: Source, columns: Sequence[str]) -> Iterator[Slice]:
    """The rows of each value of each of ``columns``.

    A number with many values is cut into four bands of equally many rows.

    Raises:
      ConfigError: If a column is not among the features, naming those that are.
    """
    for column in columns:
        yield from _slices(source, column)


def _slices(source: Source, column: str) -> Iterator[Slice]:
    names, values = source.feature_names, _encoded(source)
    if column in names:
        place = names.index(column)
        yield from _of_number(column, _plain(source, column, values[:, place]))
        return
    start = f"{column}="
    places = [i for i, name in enumerate(names) if name.startswith(start)]
    if not places:
        known = sorted({name.partition("=")[0] for name in names})
        raise ConfigError(
            f"export.slice_columns: {source.name} has no feature column {column!r}; it "
            f"has {', '.join(known) or 'none with a name'}."
        )
    for place in places:
        rows = np.flatnonzero(values[:, place] > 0.5)
        if len(rows):
            yield Slice(column, names[place].removeprefix(start), rows)


def _of_number(column: str, values: Array) -> Iterator[Slice]:
    unique = np.unique(values)
    if len(unique) <= _MOST_VALUES:
        for value in unique:
            yield Slice(column, f"{value:g}", np.flatnonzero(values == value))
        return
    inner = np.quantile(values, np.arange(1, _BANDS) / _BANDS)
    bands = np.searchsorted(np.unique(inner), values, side="right")
    for band in np.unique(bands):
        rows = np.flatnonzero(bands == band)
        low, high = values[rows].min(), values[rows].max()
        yield Slice(column, f"{low:g} to {high:g}", rows)


def _encoded(source: Source) -> Array:
    features = source.evaluation.features
    found = features.get(COLUMNS) if isinstance(features, dict) else features
    if found is None or np.ndim(found) != 2:
        return np.zeros([source.evaluation.num_examples, 0])
    return np.asarray(found)


def _plain(source: Source, column: str, values: Array) -> Array:
    """In the column's own unit, where a schema says what that is."""
    known = source.schema.features if source.schema else ()
    of_schema = [c for c in known if c.name == column]
    return decoded(of_schema[0], values) if of_schema else np.round(values, 6)
