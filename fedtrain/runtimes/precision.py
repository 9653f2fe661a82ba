"""Lower precision inside clients' steps, by TensorFlow's own graph rewrite.

Matrix products and convolutions are computed in the lower type; weights, updates and
sums keep the model's type, because a rewrite of the graph changes what happens between
operations, not what goes in or out of the program. XLA programs are not rewritten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import tensorflow as tf

from fedtrain.core.errors import ConfigError

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


def check_precision(precision: Precision) -> None:
    """Raises ConfigError where this machine's devices cannot compute in it."""
    if precision == "float16" and not tf.config.list_logical_devices("GPU"):
        raise ConfigError(
            'precision is "float16", which needs a GPU, and there is none here. Use '
            '"bfloat16", which processors can compute in, or "float32".'
        )


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Programs called inside compute in ``precision``; process-wide until it ends."""
    option = _option(precision)
    if option is None:
        yield
        return
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({**before, option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options(
            {option: before.get(option, False)}
        )


def _option(precision: Precision) -> str | None:
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    return {
        "float32": None,
        "float16": "auto_mixed_precision",
        "bfloat16": "auto_mixed_precision_bfloat16"
        if on_gpu
        else "auto_mixed_precision_onednn_bfloat16",
    }[precision]
