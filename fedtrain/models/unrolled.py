"""Recurrent layers without loops, for runtimes that have no lists of tensors.

What a loop collects step by step is a list of tensors, which TFLite takes for a fixed
number of rows only. With one copy of the step for each place in time there is none.
"""

import contextlib
import threading
from collections.abc import Iterator

from fedtrain.core.errors import ConfigError

_THREAD = threading.local()
# Steps of one layer: the graph and the time to convert it grow with them.
MAX_STEPS = 512


@contextlib.contextmanager
def unrolled() -> Iterator[None]:
    """Within, models are traced with a copy of a recurrent step for each place.

    Raises:
      ConfigError: At the end, naming a layer with too many steps, or any number.
    """
    refused: list[str] = []
    before, _THREAD.refused = getattr(_THREAD, "refused", None), refused
    try:
        yield
    finally:
        _THREAD.refused = before
    # Not earlier: Keras would dress up an error that is raised within a layer.
    if refused:
        raise ConfigError(refused[0])


def is_unrolled() -> bool:
    """Whether this thread is inside ``unrolled``."""
    return getattr(_THREAD, "refused", None) is not None


def can_unroll(num_steps: int | None, layer: str) -> bool:
    """Whether ``unrolled`` can write ``layer`` without a loop; else it will say so."""
    if num_steps is not None and num_steps <= MAX_STEPS:
        return True
    found = "any number of" if num_steps is None else str(num_steps)
    _THREAD.refused.append(
        f"The recurrent layer {layer!r} takes {found} steps; without a loop it can be "
        f"written for at most {MAX_STEPS}, a number that the rows fix. Cut the rows, "
        "or use the server, web or onnx target, which take loops."
    )
    return False
