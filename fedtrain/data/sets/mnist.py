"""MNIST by writer, or divided by a partition.

Sources: LeCun, Cortes and Burges (1998), CC BY-SA 3.0; writers: Yadav and Bottou
(2019), QMNIST, https://arxiv.org/abs/1905.10498.
"""

import gzip
from typing import Any

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.core.seeds import Seed
from fedtrain.data.examples import Array, Examples
from fedtrain.data.partition import Partition
from fedtrain.data.sets.files import data_file
from fedtrain.data.sets.split import (
    DataSplit,
    by_ids,
    natural_split,
    partitioned_split,
)

_ORIGIN = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/ (the idx files) and "
    "https://github.com/facebookresearch/qmnist (mnist_writers.npz: arrays "
    "train_writer and test_writer, column 2 of QMNIST's labels)"
)
_DTYPES: dict[int, Any] = {
    0x08: np.dtype(">u1"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
}


def load(*, seed: Seed, partition: Partition | None = None) -> DataSplit:
    """MNIST: 539 writers are the clients, and 297 others write the test rows.

    Features are float32 [rows, 28, 28, 1] in [0, 1]; labels int32. The test rows are
    MNIST's own 10,000.

    Args:
      seed: Of the partition.
      partition: Divides the pooled 60,000 rows instead of taking writers.
    """
    train, test = _examples("train"), _examples("t10k")
    facts: dict[str, Any] = {
        "name": "mnist",
        "num_classes": 10,
        "label_names": tuple("0123456789"),
        "source": "MNIST (CC BY-SA 3.0), writers from QMNIST (BSD)",
    }
    if partition is not None:
        return partitioned_split(train, test, partition, seed=seed, **facts)
    with np.load(
        data_file("mnist/mnist_writers.npz", origin=_ORIGIN), allow_pickle=False
    ) as writers:
        train_ids = _names(writers["train_writer"])
        test_ids = _names(writers["test_writer"])
    return natural_split(
        by_ids(train, train_ids, name="mnist"),
        test,
        by_ids(test, test_ids, name="mnist_test"),
        **facts,
    )


def read_idx(content: bytes) -> Array:
    """The array in an idx file (LeCun's format)."""
    if len(content) < 4 or content[2] not in _DTYPES:
        raise DataError(f"Not an idx file: it starts with {content[:4]!r}.")
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, 4)
    values = np.frombuffer(content, _DTYPES[content[2]], offset=4 + 4 * rank)
    return values.reshape(shape)


def _examples(part: str) -> Examples:
    images = _read(f"{part}-images-idx3-ubyte.gz")
    labels = _read(f"{part}-labels-idx1-ubyte.gz")
    scaled = images.astype(np.float32)[..., np.newaxis] / np.float32(255)
    return Examples(features=scaled, labels=labels.astype(np.int32))


def _read(name: str) -> Array:
    path = data_file(f"mnist/{name}", origin=_ORIGIN)
    return read_idx(gzip.decompress(path.read_bytes()))


def _names(writers: Array) -> Array:
    return np.array([f"writer_{writer:04d}" for writer in writers])
