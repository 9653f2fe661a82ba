"""TFF's HDF5 files: ``examples/<client id>/<column>``, read without TFF."""

from collections.abc import Iterable, Iterator
from typing import Any

import h5py
import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.readers.joining import joined
from fedtrain.data.readers.storage import local_path
from fedtrain.data.tables import Table

_EXAMPLES = "examples"


def clients(source: str) -> Iterator[tuple[str, Table]]:
    """Each client's id and its rows, one client in memory at a time."""
    try:
        with h5py.File(local_path(source), "r") as file:
            if _EXAMPLES not in file:
                raise DataError(
                    f"{source} has no group {_EXAMPLES!r}; it has {list(file)}. TFF's "
                    "files hold examples/<client id>/<column>."
                )
            for client_id, group in file[_EXAMPLES].items():
                yield client_id, {name: _column(group[name]) for name in group}
    except OSError as error:
        raise DataError(f"{source} is not an HDF5 file: {error}.") from error


def table(source: str, text_columns: Iterable[str] | None = None) -> Table:
    """All clients' rows, with their ids in the column ``"client_id"``.

    Args:
      source: Path or URL.
      text_columns: Not used: columns have types of their own.
    """
    del text_columns
    return joined(clients(source))


def _column(values: Any) -> Any:
    content = values[()]
    if content.dtype.kind in "SO":
        plain = [_text(value) for value in content.reshape(-1)]
        return np.array(plain, dtype=object).reshape(content.shape)
    return content


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
