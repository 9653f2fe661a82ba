"""Comma-separated values; ``.tsv`` files are separated by tabs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fedtrain.core.errors import DataError
from fedtrain.data.readers.storage import open_binary
from fedtrain.data.tables import Table, table_of

# What was written is what is read: by itself from pandas 3.1 on, which warns if asked.
_VERSION = tuple(int(part) for part in pd.__version__.split(".")[:2])
_EXACTLY: Any = {} if _VERSION >= (3, 1) else {"float_precision": "round_trip"}


def table(
    source: str, text_columns: Sequence[str] = (), separator: str | None = None
) -> Table:
    """The rows of a CSV file with a header.

    Args:
      source: Path or URL; may be compressed.
      text_columns: Read as text, so that an id like ``007`` keeps its zeros.
      separator: Between values; by default a tab for ``.tsv``, else a comma.
    """
    if separator is None:
        separator = "\t" if ".tsv" in source else ","
    try:
        with open_binary(source) as file:
            frame = pd.read_csv(
                file,
                sep=separator,
                dtype=dict.fromkeys(text_columns, str),
                low_memory=False,
                **_EXACTLY,
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        raise DataError(f"{source} is not a CSV file: {str(error).strip()}.") from error
    return table_of(frame)
