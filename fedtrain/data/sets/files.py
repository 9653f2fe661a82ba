"""Finding the files of the named sets that are not bundled with a dependency."""

import os
from pathlib import Path

from fedtrain.core.errors import DataError

VARIABLE = "FEDTRAIN_DATA_DIR"


def data_file(relative: str, *, origin: str) -> Path:
    """The file ``relative`` to the folder that ``FEDTRAIN_DATA_DIR`` names.

    Args:
      relative: Such as ``"mnist/train-labels-idx1-ubyte.gz"``.
      origin: Where to get it, for the error.

    Raises:
      DataError: If the variable is not set, or the file is not there.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise DataError(
            f"{VARIABLE} is not set. This data set reads {relative!r} from the folder "
            f"it names; get the file from {origin}."
        )
    path = Path(folder) / relative
    if not path.is_file():
        raise DataError(
            f"{path} is not there ({VARIABLE}={folder}); get it from {origin}."
        )
    return path
