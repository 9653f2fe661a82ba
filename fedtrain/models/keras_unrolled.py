"""Keras's recurrent layers without loops, while a model is traced for it."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from fedtrain.models.unrolled import can_unroll, is_unrolled


@contextlib.contextmanager
def unrolled_layers(layers: list[Any]) -> Iterator[None]:
    """Within this and ``unrolled``, recurrent ones among ``layers`` have no loop."""
    recurrent = [layer for layer in layers if isinstance(layer, keras.layers.RNN)]
    changed = recurrent if is_unrolled() else []
    before = [dict(vars(layer)) for layer in changed]
    for layer in changed:
        layer.__dict__.update(_without_loop(layer))
    try:
        yield
    finally:
        for layer, attributes in zip(changed, before, strict=True):
            for name in _without_loop(layer):
                layer.__dict__.pop(name)
                if name in attributes:
                    layer.__dict__[name] = attributes[name]


def _without_loop(layer: Any) -> dict[str, Any]:
    return {
        "unroll": True,
        "_could_use_gpu_kernel": False,  # Keras 2: a kernel with a loop in it
        "go_backwards": False,
        "call": functools.partial(_call, layer, layer.call, layer.go_backwards),
    }


def _call(
    layer: Any,
    original: Any,
    backwards: bool,  # noqa: FBT001 - bound by partial
    values: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    first, *states = tf.nest.flatten(values)
    layer.__dict__["unroll"] = can_unroll(first.shape[1], layer.name)
    if backwards:
        # Unrolled, Keras turns round the rows, but not the mask of its outputs.
        first = tf.reverse(first, [1])
        if kwargs.get("mask") is not None:
            kwargs["mask"] = tf.reverse(kwargs["mask"], [1])
    return original([first, *states] if states else first, *args, **kwargs)
