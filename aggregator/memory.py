"""How the aggregator keeps its memory small.

What is free goes back to the system, and a sum of contributions becomes tensors where
it lies.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from fedtrain.wire.arrays import Array

ALIGNED_BYTES = 64  # what TensorFlow asks of memory that it did not allocate
_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3


def give_memory_back() -> None:
    """Keeps glibc from hoarding what was free once; safe to call again.

    It would keep what chunks took, in as many heaps as there are threads.

    Source: mallopt(3).
    """
    with _c_library() as c_library:
        c_library.mallopt(_M_ARENA_MAX, 2)
        # Chunks stay below it: to map each would cost more than all that is done to it.
        c_library.mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


def give_tensors_back() -> None:
    """Keeps TensorFlow from hoarding, unless the operator says otherwise.

    With oneDNN it keeps the most that its tensors ever took, several models, unless it
    is told, before it is loaded, to ask the system for each. The environment is changed
    for that: only a program that is the aggregator, and nothing else, may call it.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def trim() -> None:
    """Gives back what lies free within heaps, such as buffers of the last uploads.

    Source: malloc_trim(3).
    """
    with _c_library() as c_library:
        c_library.malloc_trim(0)


def aligned(size: int, dtype: str) -> Array:
    """An array of one axis, not filled, that TensorFlow can use where it lies."""
    num_bytes = size * np.dtype(dtype).itemsize
    raw = np.empty(num_bytes + ALIGNED_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNED_BYTES
    return raw[start : start + num_bytes].view(dtype)


@contextlib.contextmanager
def _c_library() -> Iterator[Any]:
    """Does nothing where it is another than glibc."""
    with contextlib.suppress(OSError, AttributeError):
        yield ctypes.CDLL(None)
