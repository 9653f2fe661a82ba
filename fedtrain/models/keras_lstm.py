"""Plain Keras LSTM layers computed by ``models.lstm`` while a model is traced.

Keras's own loop takes three times as long on a CPU, and its gradient cannot be
vectorised. Layers that are not plain keep their own loop: other activations, dropout,
masks, initial or returned states, mixed precision, subclasses.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from fedtrain.models.lstm import lstm


@contextlib.contextmanager
def own_lstm_loops(layers: list[Any]) -> Iterator[None]:
    """Within, the plain LSTM layers among ``layers`` use the library's loop."""
    plain = [layer for layer in layers if _is_plain(layer)]
    for layer in plain:
        layer.__dict__["call"] = functools.partial(_call, layer, layer.call)
    try:
        yield
    finally:
        for layer in plain:
            del layer.__dict__["call"]


def _is_plain(layer: Any) -> bool:
    if type(layer) is not keras.layers.LSTM or "call" in vars(layer):
        return False
    needed = (
        layer.activation is keras.activations.tanh,
        layer.recurrent_activation is keras.activations.sigmoid,
        layer.use_bias,
        layer.compute_dtype == tf.as_dtype(layer.cell.kernel.dtype).name,
    )
    unwanted = ("return_state", "stateful", "unroll", "time_major")
    dropped = (layer.dropout, layer.recurrent_dropout)
    is_other = any(getattr(layer, name, False) for name in unwanted) or any(dropped)
    return all(needed) and not is_other


def _call(layer: Any, original: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
    states_or_masks = [*args, kwargs.get("initial_state"), kwargs.get("mask")]
    if isinstance(values, tf.RaggedTensor) or any(
        given is not None for given in states_or_masks
    ):
        return original(values, *args, **kwargs)
    cell = layer.cell
    weights = {
        "kernel": tf.convert_to_tensor(cell.kernel),
        "recurrent": tf.convert_to_tensor(cell.recurrent_kernel),
        "bias": tf.convert_to_tensor(cell.bias),
    }
    hidden = lstm(tf.reverse(values, [1]) if layer.go_backwards else values, weights)
    return hidden if layer.return_sequences else hidden[:, -1]
