"""TensorFlow Federated's ``ClientData``: the door for TFF data sets."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_federated as tff

from fedtrain.core.errors import DataError
from fedtrain.data.readers.joining import joined
from fedtrain.data.tables import Table

FEATURES, LABELS = "features", "labels"


def clients(client_data: Any) -> Iterator[tuple[str, Table]]:
    """Each client's id and its rows, one client in memory at a time.

    Args:
      client_data: Any ``tff.simulation.datasets.ClientData``. Elements are mappings
        (columns by name) or pairs (columns ``"features"`` and ``"labels"``).
    """
    if not isinstance(client_data, tff.simulation.datasets.ClientData):
        raise DataError(
            f"Expected a tff.simulation.datasets.ClientData, got {type(client_data)}."
        )
    for client_id in client_data.client_ids:
        dataset = client_data.create_tf_dataset_for_client(client_id)
        rows = [_row(element) for element in dataset.as_numpy_iterator()]
        if rows:
            yield (
                client_id,
                {name: _stack([row[name] for row in rows]) for name in rows[0]},
            )


def table(client_data: Any) -> Table:
    """All clients' rows, with their ids in the column ``"client_id"``."""
    return joined(clients(client_data))


def _row(element: Any) -> Mapping[str, Any]:
    if isinstance(element, Mapping):
        return element
    if isinstance(element, tuple) and len(element) == 2:
        return dict(zip((FEATURES, LABELS), element, strict=True))
    raise DataError(
        f"An element of this ClientData is a {type(element).__name__}; mappings and "
        "pairs of features and label are understood. Map it to one of them first."
    )


def _stack(values: list[Any]) -> Any:
    if isinstance(values[0], bytes):
        return np.array([value.decode(errors="replace") for value in values], object)
    return np.stack(values)
