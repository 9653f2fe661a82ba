"""How the aggregator keeps its memory small: what is free goes back to the system."""

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3


def give_memory_back() -> None:
    """Keeps glibc and TensorFlow from hoarding what was free once; safe to call again.

    glibc would keep what chunks took, in as many heaps as there are threads. And with
    oneDNN TensorFlow keeps the most that its tensors ever took, several models, unless
    it is told, before it is loaded, to ask the system for each.

    Source: mallopt(3).
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(OSError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_ARENA_MAX, 2)
        # Chunks stay below it: to map each would cost more than all that is done to it.
        c_library.mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)
