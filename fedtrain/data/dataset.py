"""A population of clients and their rows: one class, in memory or on disk.

All rows lie in one set of arrays, ordered by client, with an index of where each client
starts. Held in memory the arrays are numpy's; a packed data set maps them from disk, so
a million clients open in seconds and in constant memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import DataError
from fedtrain.data.examples import Examples, concatenate

Sensitivity = Literal["public", "private"]
# A client of fewer bytes is copied faster than it is looked up.
_SMALL_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class FederatedDataset:
    """Clients and their rows.

    Attributes:
      examples: The rows of all clients, those of one client next to each other.
      offsets: Integer array [clients + 1]: rows ``offsets[i]`` to ``offsets[i + 1]``
        belong to client ``i``.
      client_ids: The clients' names, by position.
      sensitivity: ``"public"``, or ``"private"`` (the default).
      name: For messages and reports.
      info: Further facts: labels' names, the schema's hash, the source.
    """

    examples: Examples
    offsets: npt.NDArray[np.int64]
    client_ids: Sequence[str]
    sensitivity: Sensitivity = "private"
    name: str = "dataset"
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_clients(self) -> int:
        """Number of clients in the population."""
        return len(self.offsets) - 1

    def client_id(self, position: int) -> str:
        """The name of the client at ``position``."""
        return str(self.client_ids[position])

    def client(self, position: int) -> Examples:
        """The rows of the client at ``position``, without copying."""
        return self.examples.slice(
            int(self.offsets[position]), int(self.offsets[position + 1])
        )

    def client_ids_at(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The names of the clients at ``positions``, packed ones in one go."""
        at_once = getattr(self.client_ids, "at", None)
        if at_once is not None:
            names: list[str] = at_once(positions)
            return names
        return [str(self.client_ids[position]) for position in positions]

    def clients(self, positions: npt.NDArray[np.int64]) -> list[Examples]:
        """The rows of the clients at ``positions``.

        Small clients that do not lie side by side are copied in one go, so that a
        packed data set's disk is read once and in order; others are not copied.
        """
        positions = np.asarray(positions, np.int64)
        starts, stops = self.offsets[positions], self.offsets[positions + 1]
        side_by_side = len(starts) > 0 and np.array_equal(stops[:-1], starts[1:])
        num_rows = stops - starts
        if side_by_side:
            rows = self.examples.slice(int(starts[0]), int(stops[-1]))
        elif num_rows.sum() * self.examples.row_bytes() <= _SMALL_BYTES * len(starts):
            shifts: Any = np.repeat(starts - np.cumsum(num_rows) + num_rows, num_rows)
            rows = self.examples.take(shifts + np.arange(num_rows.sum()))
            self.examples.let_go()
        else:
            return [self.client(position) for position in positions]
        return rows.split(np.concatenate([[0], np.cumsum(num_rows)]))

    def num_examples(self) -> npt.NDArray[np.int64]:
        """The number of rows of every client, by position."""
        return np.diff(self.offsets)


def from_clients(
    clients: Mapping[str, Examples],
    *,
    sensitivity: Sensitivity = "private",
    name: str = "dataset",
    info: Mapping[str, Any] | None = None,
) -> FederatedDataset:
    """A data set in memory from each client's rows; clients may be empty."""
    if not clients:
        raise DataError(f"{name} has no clients; give at least one.")
    parts = list(clients.values())
    sizes = [part.num_examples for part in parts]
    return FederatedDataset(
        examples=concatenate(parts),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        client_ids=list(clients),
        sensitivity=sensitivity,
        name=name,
        info=dict(info or {}),
    )
