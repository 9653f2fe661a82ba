"""One table from the tables of several clients."""

from collections.abc import Iterable

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.examples import Array
from fedtrain.data.tables import Table, num_rows

CLIENT_COLUMN = "client_id"


def joined(clients: Iterable[tuple[str, Table]]) -> Table:
    """All clients' rows, with their ids in the column ``"client_id"``.

    Clients without rows leave no trace in a table.

    Raises:
      DataError: If columns differ, or there is such a column already: it says who the
        clients are, and must not be replaced in silence.
    """
    ids: list[str] = []
    parts: dict[str, list[Array]] = {}
    for client_id, rows in clients:
        if CLIENT_COLUMN in rows:
            raise DataError(
                f"{client_id!r} has a column {CLIENT_COLUMN!r} of its own, and each of "
                "these files is a client by its name. Rename the column, or put the "
                "rows into one file."
            )
        if ids and set(rows) != set(parts):
            raise DataError(
                f"Client {client_id!r} has the columns {', '.join(rows)}, but those "
                f"before it have {', '.join(parts)}."
            )
        if num_rows(rows) == 0:
            continue
        ids += [client_id] * num_rows(rows)
        for name, values in rows.items():
            parts.setdefault(name, []).append(values)
    if not ids:
        raise DataError("There are no clients with rows.")
    columns: dict[str, Array] = {
        name: np.concatenate(values) for name, values in parts.items()
    }
    return columns | {CLIENT_COLUMN: np.array(ids)}
