"""Rows before a run: looked at once more, and held out for testing."""

from dataclasses import replace

import numpy as np

from fedtrain.core import seeds
from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.dataset_check import check_dataset, check_examples
from fedtrain.data.held_out import only
from fedtrain.data.sets.split import DataSplit


def check_rows(split: DataSplit) -> None:
    """Raises DataError for a value that is not finite or a label out of range."""
    train = split.train
    if train.examples.num_examples == 0:
        raise DataError(f"{train.name} has no rows at any client.")
    is_class = train.examples.labels.dtype.kind in "iu"
    classes = max(split.num_classes, 2) if is_class else None
    check_dataset(train, num_classes=classes)
    if split.test.num_examples:
        where = f"the test rows of {train.name}"
        check_examples(split.test, where=where, num_classes=classes)


def divided(
    dataset: FederatedDataset, test_fraction: float, seed: seeds.HostSeed
) -> tuple[FederatedDataset, FederatedDataset]:
    """Training rows and test rows: the same share of each client's rows, at random."""
    if test_fraction == 0.0:
        none = np.zeros_like(dataset.offsets)
        empty = dataset.examples.slice(0, 0)
        return dataset, replace(dataset, examples=empty, offsets=none)
    random = seeds.generator(seeds.derive(seed, "held_out"))
    is_test = np.zeros(dataset.examples.num_examples, bool)
    for start, stop in zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True):
        num_test = round(test_fraction * (stop - start))
        is_test[start + random.permutation(stop - start)[:num_test]] = True
    return only(dataset, ~is_test), only(dataset, is_test)
