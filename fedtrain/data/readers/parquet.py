"""Parquet files, by pyarrow."""

from collections.abc import Iterable

from fedtrain.core.errors import DataError
from fedtrain.data.readers.storage import open_binary
from fedtrain.data.tables import Table, table_of

try:
    import pyarrow
    import pyarrow.parquet as pq
except ImportError as error:
    raise DataError(
        f"Parquet needs a pyarrow that can be imported: {error}."
    ) from error


def table(source: str, text_columns: Iterable[str] | None = None) -> Table:
    """The rows of a Parquet file; lists of equal length become arrays.

    Args:
      source: Path or URL.
      text_columns: Not used: columns have types of their own.
    """
    del text_columns
    try:
        with open_binary(source) as file:
            return table_of(pq.read_table(file).to_pandas())
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{source} is not a Parquet file: {error}.") from error
