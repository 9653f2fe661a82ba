"""Last look at encoded rows before training: finite, and labels in range."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples, feature_arrays

_BLOCK_ROWS = 1 << 16


def check_dataset(dataset: FederatedDataset, *, num_classes: int | None = None) -> int:
    """Checks every row, a block at a time; returns the number of empty clients.

    Of packed rows only the labels are read: packing refuses what is not finite.

    Args:
      dataset: Encoded rows, in memory or packed.
      num_classes: Labels must be whole numbers from 0 to ``num_classes - 1``; None
        where labels are numbers to predict.

    Raises:
      DataError: Naming client, row, column and value.
    """
    findings = _bad_labels if "packed_sha256" in dataset.info else _findings
    for start in range(0, dataset.examples.num_examples, _BLOCK_ROWS):
        block = dataset.examples.slice(start, start + _BLOCK_ROWS)
        finding = next(findings(block, num_classes), None)
        if finding is not None:
            raise DataError(_message(dataset, start, finding))
    return int((dataset.num_examples() == 0).sum())


def check_examples(
    examples: Examples, *, where: str, num_classes: int | None = None
) -> None:
    """Checks rows that belong to no data set; ``where`` names them in the error."""
    found = next(_findings(examples, num_classes), None)
    if found is not None:
        raise DataError(
            f"{where}: row {found.row} (from 0), {found.array}"
            f"{list(found.place) or ''}: {found.value} {found.reason}. Correct the "
            "data."
        )


class _Finding(NamedTuple):
    array: str
    row: int
    place: tuple[int, ...]
    value: str
    reason: str


def _findings(block: Examples, num_classes: int | None) -> Iterator[_Finding]:
    named = [*feature_arrays(block.features), ("labels", block.labels)]
    if block.weights is not None:
        named.append(("weights", block.weights))
        yield from _first("weights", block.weights, block.weights < 0, "is negative")
    for name, values in named:
        if values.dtype.kind == "f":
            yield from _first(
                name, values, ~np.isfinite(values), "is not a finite number"
            )
    yield from _bad_labels(block, num_classes)


def _bad_labels(block: Examples, num_classes: int | None) -> Iterator[_Finding]:
    if num_classes is not None:
        outside = (block.labels < 0) | (block.labels >= num_classes)
        allowed = f"is outside the labels 0 to {num_classes - 1}"
        yield from _first("labels", block.labels, outside, allowed)


def _first(name: str, values: Array, broken: Array, reason: str) -> Iterator[_Finding]:
    if broken.any():
        row, *place = np.argwhere(broken)[0].tolist()
        value = str(values[(row, *place)])
        yield _Finding(name, row, tuple(place), value, reason)


def _message(dataset: FederatedDataset, start: int, found: _Finding) -> str:
    row = start + found.row
    client = int(np.searchsorted(dataset.offsets, row, side="right")) - 1
    own_row = row - int(dataset.offsets[client])
    return (
        f"{dataset.name}: client {dataset.client_id(client)!r}, row {own_row} (from 0 "
        f"among its own), column {_column(dataset, found)}: {found.value} "
        f"{found.reason}. Correct the data; a schema checks it where it is read."
    )


def _column(dataset: FederatedDataset, found: _Finding) -> str:
    names = dataset.info.get("feature_names", ())
    if found.array == "features" and len(found.place) == 1:
        (number,) = found.place
        return repr(names[number]) if number < len(names) else f"features[{number}]"
    return f"{found.array}{list(found.place) if found.place else ''}"
