"""What a data set looks like: sizes, labels, and how much clients differ.

The numbers are exact and therefore not private: on private data they are for the eyes
of whoever holds it, and belong in no report that is shared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset, Sensitivity
from fedtrain.data.examples import Array, feature_arrays

_BLOCK_CLIENTS = 4096


@dataclass(frozen=True, kw_only=True)
class Description:
    """A data set in numbers.

    Attributes:
      name: Of the data set.
      sensitivity: ``"public"`` or ``"private"``.
      num_clients: Clients, the empty ones included.
      empty_clients: Clients without rows.
      num_examples: Rows.
      rows_per_client: Minimum, quartiles, maximum and mean, by name.
      features: Shape of a row and type, by input.
      label_counts: Rows of each label (tokens, for text); empty for numbers.
      label_names: Of those labels.
      label_skew: Mean over clients of the total variation distance between their label
        distribution and the overall one: 0 is IID, towards 1 nothing in common.
      labels_per_client: Mean number of different labels that a client holds.
      partition: How clients came about, where known.
      schema_sha256: Of the schema, where there is one.
    """

    name: str
    sensitivity: Sensitivity
    num_clients: int
    empty_clients: int
    num_examples: int
    rows_per_client: dict[str, float]
    features: dict[str, str]
    label_counts: tuple[int, ...] = ()
    label_names: tuple[str, ...] = ()
    label_skew: float | None = None
    labels_per_client: float | None = None
    partition: str | None = None
    schema_sha256: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def summary(self) -> list[tuple[str, str]]:
        """Names and values for a table of two columns."""
        rows = self.rows_per_client
        spread = ", ".join(f"{name} {value:g}" for name, value in rows.items())
        lines = [
            ("data set", self.name),
            ("sensitivity", self.sensitivity),
            ("clients", f"{self.num_clients:,} ({self.empty_clients:,} empty)"),
            ("rows", f"{self.num_examples:,}"),
            ("rows per client", spread),
            *((f"input {name}", value) for name, value in self.features.items()),
        ]
        return lines + self._label_lines()

    def _label_lines(self) -> list[tuple[str, str]]:
        optional = [
            ("labels", f"{len(self.label_counts)}" if self.label_counts else None),
            ("labels per client", _shown(self.labels_per_client, ".1f")),
            ("label skew (0 is IID)", _shown(self.label_skew, ".3f")),
            ("partition", self.partition),
            ("schema", self.schema_sha256),
        ]
        return [(name, value) for name, value in optional if value is not None]


def describe(
    dataset: FederatedDataset, *, label_names: Sequence[str] = ()
) -> Description:
    """Reads all labels, a few thousand clients at a time."""
    sizes = dataset.num_examples()
    labels = _label_facts(dataset)
    names = tuple(label_names) or tuple(dataset.info.get("label_names", ()))
    return Description(
        name=dataset.name,
        sensitivity=dataset.sensitivity,
        num_clients=dataset.num_clients,
        empty_clients=int((sizes == 0).sum()),
        num_examples=int(sizes.sum()),
        rows_per_client=_spread(sizes),
        features={
            name: f"{array.dtype} {list(array.shape[1:])}"
            for name, array in feature_arrays(dataset.examples.features)
        },
        label_names=names,
        partition=dataset.info.get("partition"),
        schema_sha256=dataset.info.get("schema_sha256"),
        **labels,
    )


def label_counts(
    dataset: FederatedDataset, positions: Sequence[int] | None = None
) -> Array:
    """How often each client has each label: int64 [clients, labels], for plots.

    Args:
      dataset: With whole-number labels.
      positions: Of the clients to count; all by default.

    Raises:
      DataError: If labels are no whole numbers of at least 0.
    """
    chosen = range(dataset.num_clients) if positions is None else positions
    num_labels = _num_labels(dataset)
    if num_labels is None:
        raise DataError(
            f"{dataset.name} has labels of type {dataset.examples.labels.dtype}; only "
            "whole numbers of at least 0 can be counted."
        )
    counts = [
        np.bincount(np.asarray(dataset.client(i).labels).reshape(-1), None, num_labels)
        for i in chosen
    ]
    return np.array(counts, np.int64).reshape([len(counts), num_labels])


def _label_facts(dataset: FederatedDataset) -> dict[str, Any]:
    if _num_labels(dataset) is None:
        return {}
    total = sum(block.sum(axis=0) for block in _blocks(dataset))
    overall = total / max(total.sum(), 1)
    distances, held, clients = 0.0, 0, 0
    for block in _blocks(dataset):
        real = block[block.sum(axis=1) > 0]
        shares = real / real.sum(axis=1, keepdims=True)
        distances += float(np.abs(shares - overall).sum()) / 2
        held += int((real > 0).sum())
        clients += len(real)
    return {
        "label_counts": tuple(int(count) for count in total),
        "label_skew": distances / max(clients, 1),
        "labels_per_client": held / max(clients, 1),
    }


def _blocks(dataset: FederatedDataset) -> Iterator[Array]:
    for start in range(0, dataset.num_clients, _BLOCK_CLIENTS):
        stop = min(start + _BLOCK_CLIENTS, dataset.num_clients)
        yield label_counts(dataset, range(start, stop))


def _num_labels(dataset: FederatedDataset) -> int | None:
    labels = dataset.examples.labels
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0:
        return None
    return int(labels.max()) + 1


def _spread(sizes: Array) -> dict[str, float]:
    names = ("min", "25 %", "median", "75 %", "max")
    quantiles = np.quantile(sizes, [0, 0.25, 0.5, 0.75, 1])
    values = dict(zip(names, quantiles.tolist(), strict=True))
    return values | {"mean": round(float(sizes.mean()), 2)}


def _shown(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
