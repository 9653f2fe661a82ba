"""Lower precision inside clients' steps, by TensorFlow's own graph rewrite.

Matrix products and convolutions are computed in the lower type; weights, updates and
sums keep the model's type, because a rewrite of the graph changes what happens between
operations, not what goes in or out of the program. XLA programs are not rewritten.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Literal

import tensorflow as tf

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.core.mechanism import Mechanism

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")

# Several devices' threads may be inside at once; the last one out turns it off.
_lock = Lock()
_inside: dict[str, int] = {}


def check_precision(precision: Precision) -> None:
    """Raises ConfigError where this machine's devices cannot compute in it."""
    if precision == "float16" and not tf.config.list_logical_devices("GPU"):
        raise ConfigError(
            'precision is "float16", which needs a GPU, and there is none here. Use '
            '"bfloat16", which processors can compute in, or "float32".'
        )


def refuse_rounded_sums(precision: Precision, mechanisms: Iterable[Mechanism]) -> None:
    """Raises PrivacyError where a bound on a row or entity relies on full precision.

    The sum of a batch's clipped gradients comes out of a matrix product. Rounded to 8
    bits, one row moves a sum of 256 by more than the clipping norm.
    """
    if precision == "float32":
        return
    for mechanism in mechanisms:
        if mechanism.unit != "client":
            raise PrivacyError(
                f'precision is "{precision}", but the {mechanism.name} mechanism sums '
                f"the clipped gradients of each {mechanism.unit}, and rounding the sum "
                'would let one move it by more than the noise hides. Use "float32".'
            )


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Programs called inside compute in ``precision``; process-wide until it ends."""
    option = _option(precision)
    if option is None:
        yield
        return
    # Set by every thread: each keeps a copy of the options, which setting renews.
    _set(option, on=True)
    try:
        yield
    finally:
        _set(option, on=False)


def _set(option: str, *, on: bool) -> None:
    with _lock:
        _inside[option] = _inside.get(option, 0) + (1 if on else -1)
        if on or not _inside[option]:
            options = tf.config.optimizer.get_experimental_options()
            tf.config.optimizer.set_experimental_options({**options, option: on})


def _option(precision: Precision) -> str | None:
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    return {
        "float32": None,
        "float16": "auto_mixed_precision",
        "bfloat16": "auto_mixed_precision_bfloat16"
        if on_gpu
        else "auto_mixed_precision_onednn_bfloat16",
    }[precision]
