"""Rows that a client keeps back from training, chosen by each row alone."""

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples, feature_arrays

_WORD_BITS = 64
_BLOCK_ROWS = 1 << 14
Mask = npt.NDArray[np.bool_]


def is_held_out(examples: Examples, *, fraction: float, salt: str) -> Mask:
    """Which rows are kept back, bool [rows].

    Args:
      examples: Any rows.
      fraction: The share of all possible rows that is kept back.
      salt: Public; another one keeps other rows back.

    Guarantees:
      A row's own values decide, whatever the other rows are: one row more or less
      changes nothing for the rest, and a simulation and a partner choose alike. Equal
      rows stay together.
    """
    arrays = [*feature_arrays(examples.features), ("labels", examples.labels)]
    key = hashlib.sha256(f"held out {salt}".encode()).digest()
    below = int(fraction * 2**_WORD_BITS)
    blocks = [
        _words([array[start : start + _BLOCK_ROWS] for _, array in arrays], key)
        for start in range(0, examples.num_examples, _BLOCK_ROWS)
    ]
    words = [word for block in blocks for word in block]
    return np.array([word < below for word in words], bool)


def only(dataset: FederatedDataset, keep: Mask) -> FederatedDataset:
    """``dataset`` with the rows where ``keep`` is true, at the same clients."""
    kept = np.concatenate([[0], np.cumsum(keep)])
    rows = dataset.examples.take(np.flatnonzero(keep))
    offsets = kept[dataset.offsets].astype(np.int64)
    return replace(dataset, examples=rows, offsets=offsets)


def _words(arrays: list[npt.NDArray[np.generic]], key: bytes) -> list[int]:
    rows = np.concatenate([_as_bytes(array) for array in arrays], axis=1)
    return [
        int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest())
        for row in rows
    ]


def _as_bytes(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Little-endian bytes of each row, uint8 [rows, bytes]."""
    flat = np.asarray(array).reshape(len(array), -1)
    plain = np.ascontiguousarray(flat, flat.dtype.newbyteorder("<"))
    return plain.view(np.uint8).reshape(len(array), -1)
