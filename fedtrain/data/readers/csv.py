"""Comma-separated values; ``.tsv`` files are separated by tabs."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from fedtrain.core.errors import DataError
from fedtrain.data.readers.storage import open_binary
from fedtrain.data.tables import Table, table_of

# What was written is what is read: by itself from pandas 3.1 on, which warns if asked.
_VERSION = tuple(int(part) for part in pd.__version__.split(".")[:2])
_EXACTLY: Any = {} if _VERSION >= (3, 1) else {"float_precision": "round_trip"}


def table(
    source: str,
    text_columns: Mapping[str, Collection[str] | None] | None = None,
    separator: str | None = None,
) -> Table:
    """The rows of a CSV file with a header.

    An empty field is missing. A word for nothing, such as NA, None or nan, is missing
    where a number stands in the column, and a text like any other where only words do.

    Args:
      source: Path or URL; may be compressed.
      text_columns: Read as text, so that an id like ``007`` keeps its zeros; with the
        words for nothing that are texts there, None for all of them.
      separator: Between values; by default a tab for ``.tsv``, else a comma.
    """
    if separator is None:
        separator = "\t" if ".tsv" in source else ","
    given = text_columns or {}
    frame = _frame(source, sep=separator, dtype=dict.fromkeys(given, str))
    gaps = {name for name in frame if frame[name].isna().any()}
    gaps = {name for name in gaps if name in given or _is_words(frame[name])}
    if not gaps or not isinstance(frame.index, pd.RangeIndex):
        return table_of(frame)
    only_empty = {"dtype": str, "keep_default_na": False, "na_values": [""]}
    written = _frame(source, sep=separator, usecols=gaps.__contains__, **only_empty)
    for name in gaps & set(written):
        words, texts = written[name], given.get(name)
        is_text = words.notna() if texts is None else words.isin(list(texts))
        frame[name] = frame[name].where(~is_text, words)
    return table_of(frame)


def _frame(source: str, **options: Any) -> pd.DataFrame:
    try:
        with open_binary(source) as file:
            return pd.read_csv(file, low_memory=False, **options, **_EXACTLY)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        raise DataError(f"{source} is not a CSV file: {str(error).strip()}.") from error


def _is_words(column: Any) -> bool:
    present = column.dropna()
    if not all(isinstance(value, str) for value in present):
        return False
    return len(present) > 0 and bool(
        pd.to_numeric(present, errors="coerce").isna().all()
    )
