"""How small weights get: sparsity, distinct values, and bytes after gzip."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]

_LARGEST_CODE = 127


def file_gzip_bytes(path: Path) -> int:
    """Bytes of a file after gzip, whatever its name and time stamp."""
    return gzip_bytes(Path(path).read_bytes())


def gzip_bytes(content: bytes) -> int:
    """Bytes of ``content`` after gzip at its best level, header included."""
    return len(gzip.compress(content, compresslevel=9, mtime=0))


def weights_gzip_bytes(weights: Any) -> int:
    """Bytes after gzip of the weights in their shortest exact form.

    A leaf of at most 256 distinct values is a codebook and one byte a weight; one whose
    channels lie on grids of 255 values is int8 codes and a scale for each channel (the
    last axis); any other stays as it is.

    Args:
      weights: Nest of arrays or tensors.
    """
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(weights)]
    return gzip_bytes(b"".join(_encoded(leaf) for leaf in leaves))


def sparsity(weights: Any) -> float:
    """Share of exact zeros among all scalars of a nest; 0 for an empty one."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(weights)]
    zeros = sum(int(np.count_nonzero(leaf == 0)) for leaf in leaves)
    return zeros / max(sum(leaf.size for leaf in leaves), 1)


def num_distinct(leaf: Any) -> int:
    """Number of distinct values of one leaf, zero included."""
    return int(np.unique(np.asarray(leaf)).size)


def _encoded(leaf: Array) -> bytes:
    values, places = np.unique(leaf, return_inverse=True)
    if values.size <= 256:
        return values.tobytes() + places.astype(np.uint8).tobytes()
    return _on_grids(leaf) or leaf.tobytes()


def _on_grids(leaf: Array) -> bytes | None:
    """Codes and scales, or None where the codes would not give back the leaf."""
    if leaf.ndim < 2:
        return None
    largest = np.abs(leaf).max(tuple(range(leaf.ndim - 1)), keepdims=True)
    scales = np.where(largest > 0, largest / _LARGEST_CODE, 1).astype(leaf.dtype)
    codes = np.rint(leaf / scales)
    if not np.allclose(codes * scales, leaf, rtol=1e-6, atol=0):
        return None
    return scales.tobytes() + codes.astype(np.int8).tobytes()
