"""Rows before a run: checked for what no model can take, and held out for testing."""

import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds
from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples, feature_arrays
from fedtrain.data.sets.split import DataSplit


def check_rows(split: DataSplit) -> None:
    """Raises DataError for a value that is not finite or a label out of range.

    Arrays mapped from disk were checked when they were packed, and are not read here.
    """
    train = split.train
    if isinstance(train.examples.labels, np.memmap):
        return
    if train.examples.num_examples == 0:
        raise DataError(f"{train.name} has no rows at any client.")
    for where, rows in ((train.name, train.examples), ("the test rows", split.test)):
        for name, values in feature_arrays(rows.features):
            if values.dtype.kind == "f":
                bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
                _refuse(bad, train, where, f"{name} holds NaN or an infinity")
        if split.task == "classification" and rows.labels.dtype.kind in "iu":
            bad = (rows.labels < 0) | (rows.labels >= max(split.num_classes, 2))
            allowed = f"the label is outside 0 to {split.num_classes - 1}"
            _refuse(bad, train, where, allowed)


def divided(
    dataset: FederatedDataset, test_fraction: float, seed: seeds.HostSeed
) -> tuple[FederatedDataset, FederatedDataset]:
    """Training rows and test rows: the same share of each client's rows, at random."""
    if test_fraction == 0.0:
        none = np.zeros_like(dataset.offsets)
        empty = {"examples": dataset.examples.slice(0, 0), "offsets": none}
        return dataset, FederatedDataset(**(vars(dataset) | empty))
    random = seeds.generator(seeds.derive(seed, "held_out"))
    is_test = np.zeros(dataset.examples.num_examples, bool)
    for start, stop in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        num_test = round(test_fraction * (stop - start))
        is_test[start + random.permutation(stop - start)[:num_test]] = True
    return _only(dataset, ~is_test), _only(dataset, is_test)


def _only(dataset: FederatedDataset, keep: npt.NDArray[np.bool_]) -> FederatedDataset:
    kept = np.concatenate([[0], np.cumsum(keep)])
    rows: Examples = dataset.examples.take(np.flatnonzero(keep))
    changed = {"examples": rows, "offsets": kept[dataset.offsets].astype(np.int64)}
    return FederatedDataset(**(vars(dataset) | changed))


def _refuse(
    bad: npt.NDArray[np.bool_], train: FederatedDataset, where: str, why: str
) -> None:
    rows = np.flatnonzero(np.asarray(bad).reshape(len(bad), -1).any(axis=1))
    if not len(rows):
        return
    row = int(rows[0])
    client = ""
    if where == train.name:
        position = int(np.searchsorted(train.offsets, row, side="right")) - 1
        client = f" client {train.client_id(position)!r},"
        row -= int(train.offsets[position])
    more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
    raise DataError(f"{where}:{client} row {row}: {why}{more}. Correct the data.")
