"""What every system trains on: the same rows, batches and first weights, in two files.

Nothing but numpy is needed to read it, so that each peer's own environment can.
"""

import itertools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """One round of FedAvg: each client passes once over its rows, in their order.

    Attributes:
      name: For tables and folders.
      kind: ``"feedforward"``: weights are pairs of kernel and bias; kernels of rank 4
        are convolutions, each with ReLU and a 2 x 2 maximum, those of rank 2 dense
        layers, all but the last with ReLU. ``"characters"``: embedding, two LSTMs
        (kernel, recurrent kernel, bias; gates input, forget, candidate, output), and a
        dense layer; label 0 is padding and does not count.
      padding: Of convolutions, ``"SAME"`` or ``"VALID"``.
      batch_size: Rows in a batch; a client's last batch may be smaller.
      learning_rate: Of the clients' SGD; the server takes the mean by rows.
      features: Array [rows, ...], those of one client next to each other.
      labels: Array [rows, ...].
      offsets: Integers [clients + 1]: where each client starts.
      weights: First weights, kernels as TensorFlow lays them out.
    """

    name: str
    kind: str
    batch_size: int
    learning_rate: float
    features: Array
    labels: Array
    offsets: Array
    weights: list[Array] = field(repr=False)
    padding: str = "VALID"

    @property
    def num_clients(self) -> int:
        """Clients in the round."""
        return len(self.offsets) - 1

    def client(self, position: int) -> tuple[Array, Array]:
        """Features and labels of one client."""
        rows = slice(self.offsets[position], self.offsets[position + 1])
        return self.features[rows], self.labels[rows]

    def num_rows(self) -> Array:
        """Rows of every client."""
        return np.diff(self.offsets)

    def steps(self) -> list[list[tuple[int, int]]]:
        """For each client, the rows (first, last + 1) of each of its batches."""
        return [
            [
                (first, min(first + self.batch_size, int(stop)))
                for first in range(int(start), int(stop), self.batch_size)
            ]
            for start, stop in itertools.pairwise(self.offsets)
        ]


_ARRAYS = ("features", "labels", "offsets")


def save(workload: Workload, folder: Path) -> Path:
    """Writes the two files into ``folder / name`` and returns that folder."""
    folder = folder / workload.name
    folder.mkdir(parents=True, exist_ok=True)
    facts = asdict(workload)
    arrays = {name: facts.pop(name) for name in _ARRAYS}
    save_weights(folder / "weights.npz", facts.pop("weights"))
    np.savez(folder / "rows.npz", **arrays)
    (folder / "workload.json").write_text(json.dumps(facts))
    return folder


def load(folder: Path) -> Workload:
    """Reads what ``save`` wrote."""
    facts = json.loads((folder / "workload.json").read_text())
    with np.load(folder / "rows.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in _ARRAYS}
    return Workload(weights=load_weights(folder / "weights.npz"), **arrays, **facts)


def save_weights(path: Path, weights: list[Array]) -> None:
    """Writes weights in their order."""
    np.savez(path, **{f"{i:03d}": np.asarray(w) for i, w in enumerate(weights)})


def load_weights(path: Path) -> list[Array]:
    """Reads weights in their order."""
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in sorted(file.files)]
