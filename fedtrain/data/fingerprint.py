"""A fingerprint of training data: the same for the same rows, and for no others."""

import hashlib
from typing import Any

import numpy as np

from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples, feature_arrays

_BLOCK_ROWS = 1 << 16


def data_sha256(dataset: FederatedDataset) -> str:
    """SHA-256 of every array, of where each client's rows start, and of all client ids.

    Packed rows are not read: their header's hashes stand for them (``verify_packed``
    holds the rows to those). What a partition or a held-out share then made of packed
    rows shows in the offsets.

    For whoever holds the data: of private rows it confirms a guess at all of them.
    """
    digest = hashlib.sha256()
    packed = dataset.info.get("packed_sha256")
    if packed is None:
        for name, values in _named(dataset.examples):
            _add_array(digest, name, values)
        for client_id in dataset.client_ids:
            encoded = str(client_id).encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    else:
        digest.update(f"packed {packed}\n".encode())
    _add_array(digest, "offsets", dataset.offsets)
    return digest.hexdigest()


def examples_sha256(examples: Examples) -> str:
    """SHA-256 of the arrays of one client's rows, entities and weights included."""
    digest = hashlib.sha256()
    for name, values in _named(examples):
        _add_array(digest, name, values)
    return digest.hexdigest()


def _named(examples: Examples) -> list[tuple[str, Array]]:
    optional = {"weights": examples.weights, "entity_ids": examples.entity_ids}
    named = [*feature_arrays(examples.features), ("labels", examples.labels)]
    return named + [(name, x) for name, x in optional.items() if x is not None]


def _add_array(digest: Any, name: str, values: Array) -> None:
    """Name, type and shape first, so that no two lists of arrays look the same."""
    values = np.asarray(values)
    dtype = values.dtype.newbyteorder("<")
    digest.update(f"{name} {dtype.str} {values.shape}\n".encode())
    for start in range(0, len(values), _BLOCK_ROWS):
        block = values[start : start + _BLOCK_ROWS].astype(dtype, copy=False)
        digest.update(block.tobytes())
