"""numpy's archives of arrays, never with pickled objects."""

import io
import zipfile
from collections.abc import Iterable

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.readers.storage import open_binary
from fedtrain.data.tables import Table, table_of


def table(source: str, text_columns: Iterable[str] | None = None) -> Table:
    """The arrays of an npz file, one row for each entry of their first dimension.

    Args:
      source: Path or URL.
      text_columns: Not used: arrays have types of their own.
    """
    del text_columns
    with open_binary(source) as file:
        content = io.BytesIO(file.read())
    try:
        with np.load(content, allow_pickle=False) as archive:
            return table_of({name: archive[name] for name in archive.files})
    except (ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(f"{source} is not a usable npz file: {error}.") from error
