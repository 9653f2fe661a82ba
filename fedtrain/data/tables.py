"""Tables: named columns of equal length, as arrays, whatever they were read from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fedtrain.core.errors import DataError
from fedtrain.data.examples import Array

Table = Mapping[str, Array]


def table_of(frame: Any) -> Table:
    """A data frame, or a mapping of arrays, as a table."""
    if isinstance(frame, pd.DataFrame):
        return {str(name): _column(frame[name]) for name in frame.columns}
    table = {str(name): np.asarray(values) for name, values in frame.items()}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The columns of a table have different lengths: {lengths}.")
    return table


def num_rows(table: Table) -> int:
    """Number of rows; 0 for a table without columns."""
    return len(next(iter(table.values()), ()))


def column_of(table: Table, name: str) -> Array:
    """The column ``name``; DataError lists what there is."""
    if name not in table:
        raise DataError(
            f"There is no column {name!r}; there are: {', '.join(table) or 'none'}."
        )
    return table[name]


def is_missing(values: Array) -> Array:
    """Bool [rows]: NaN, None or NaT; for arrays, any of a row's numbers."""
    missing = np.asarray(pd.isna(values))
    return missing.reshape(len(values), -1).any(axis=1) if values.ndim > 1 else missing


def texts(values: Array) -> Array:
    """Values as texts, whole numbers without a decimal point, missing ones ``""``."""
    if values.dtype.kind in "iu":
        return values.astype(str)
    if values.dtype.kind == "f" and _all_whole(values):
        whole = np.nan_to_num(values).astype(np.int64).astype(str)
        return np.where(is_missing(values), "", whole)
    missing = is_missing(values)
    plain = [
        "" if is_nothing else _text(value)
        for value, is_nothing in zip(values, missing, strict=True)
    ]
    return np.array(plain, dtype=str)


def numbers(values: Array) -> Array:
    """Values as float64; what is no number becomes NaN."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    return pd.to_numeric(pd.Series(values.tolist()), errors="coerce").to_numpy(
        np.float64
    )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _all_whole(values: Array) -> bool:
    real = values[np.isfinite(values)]
    finite = len(real) == np.count_nonzero(~np.isnan(values))
    return finite and bool((real == np.floor(real)).all())


def _column(series: Any) -> Array:
    if pd.api.types.is_bool_dtype(series.dtype) and not series.hasnans:
        return series.to_numpy(np.int64)
    if pd.api.types.is_numeric_dtype(series.dtype):
        has_gaps = series.isna().any()
        return series.to_numpy(np.float64) if has_gaps else series.to_numpy()
    values = series.to_numpy(object)
    return _stacked(values) if _holds_arrays(values) else values


def _holds_arrays(values: Array) -> bool:
    return len(values) > 0 and isinstance(values[0], list | tuple | np.ndarray)


def _stacked(values: Array) -> Array:
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        raise DataError(f"The rows of a column of arrays differ: {error}.") from error
