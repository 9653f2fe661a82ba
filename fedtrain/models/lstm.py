"""An LSTM layer as a pure function, with its gradient written out.

Everything that can be one matrix product over all time steps is one: the inputs'
projection and the gradients of both kernels. What is left in the loops over time is one
small product and a few element-wise operations a step; XLA compiles the loops, so a
step costs little more than its product. Being a plain sequence of operations, the
gradient can be vectorised over clients or rows, unlike TensorFlow's own of a loop.

Source: Hochreiter and Schmidhuber (1997), Long short-term memory; Gers et al. (2000)
for the forget gate.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.models.unrolled import can_unroll, is_unrolled


def lstm(values: Any, weights: dict[str, Any]) -> Any:
    """Hidden states [batch, time, units] for inputs [batch, time, features].

    Args:
      values: Floats of the weights' type.
      weights: ``kernel`` [features, 4 units], ``recurrent`` [units, 4 units] and
        ``bias`` [4 units]. The gates' order is Keras's: input, forget, candidate,
        output; so ``keras.layers.LSTM(...).weights`` are these three in this order.
    """
    return _swapped(lstm_over_time(_swapped(values), weights))


def lstm_over_time(values: Any, weights: dict[str, Any]) -> Any:
    """As ``lstm``, for inputs and hidden states [time, batch, ...].

    Layers on top of each other need no transposition between them this way.
    """
    kernel = weights["kernel"]
    flat = _rows(values) @ kernel + weights["bias"]
    shape = [_length(values), -1, kernel.shape[-1]]
    projected = tf.reshape(flat, shape)
    if is_unrolled() and can_unroll(projected.shape[0], "lstm"):
        return _step_by_step(projected, weights["recurrent"])
    return _recurrence(projected, weights["recurrent"])


def _step_by_step(projected: Any, recurrent: Any) -> Any:
    """As ``_recurrence``, without a loop and without a gradient of its own."""
    halves = _halves(recurrent.shape[0], projected.dtype)
    first, *others = tf.unstack(projected)
    let_in, _, candidate, let_out = _by_gate(tf.tanh(halves * first))
    cell = let_in * candidate
    states = [let_out * tf.tanh(cell)]
    for values in others:
        sums = values + states[-1] @ recurrent
        let_in, forget, candidate, let_out = _by_gate(tf.tanh(halves * sums))
        cell = forget * cell + let_in * candidate
        states.append(let_out * tf.tanh(cell))
    return tf.stack(states)


@tf.custom_gradient
def _recurrence(projected: Any, recurrent: Any) -> Any:
    """Hidden states [time, batch, units] from projected inputs [time, batch, ...]."""
    given = (projected, recurrent)
    if tf.executing_eagerly():
        # An outer tape would look into the loop, which XLA does not let it. Nowhere
        # else: what vectorises operations loses the gradient below and makes its own.
        given = tuple(tf.stop_gradient(argument) for argument in given)
    is_open = projected.shape[1] is None
    if is_open:
        given = (_on_grid(given[0]), given[1])
    hidden, gates, cells = _forward(*given)
    rows = tf.shape(projected)[1]
    if is_open:
        hidden = hidden[:, :rows]

    def gradient(upstream: Any) -> tuple[Any, Any]:
        # Outside of the loop: XLA would multiply by a transposed view ten times slower,
        # and transposes slowly itself.
        transposed = tf.transpose(recurrent)
        given = _on_grid(upstream) if is_open else upstream
        by_gates = _backward(given, gates, cells, transposed)
        if is_open:
            by_gates = by_gates[:, :rows]
        before, after = _rows(hidden[:-1]), _rows(by_gates[1:])
        return by_gates, tf.matmul(before, after, transpose_a=True)

    return hidden, gradient


def _on_grid(values: Any) -> Any:
    """With rows of zeros up to one of a few batch sizes; each is compiled anew.

    Multiples of 4 up to 32, of 8 up to 64, of 16 up to 128 and so on. Only for batches
    whose size is open while they are traced; others are compiled once anyway.
    """
    time, rows = tf.shape(values)[0], tf.shape(values)[1]
    # In operations that every runtime of an exported model has.
    limits = [32 << i for i in range(20)]
    doubled = tf.cast(rows > limits, tf.int32) * [limit // 8 for limit in limits]
    spacing = 4 + tf.reduce_sum(doubled)
    missing = (rows + spacing - 1) // spacing * spacing - rows
    zeros = tf.zeros([time, missing, values.shape[2]], values.dtype)
    return tf.concat([values, zeros], axis=1)


@tf.function(jit_compile=True, autograph=False)
def _forward(projected: Any, recurrent: Any) -> tuple[Any, Any, Any]:
    """Hidden states, tanh of the gates' (half) sums and cells, each [time, ...]."""
    time, units = _length(projected), recurrent.shape[0]
    halves = _halves(units, projected.dtype)
    zeros = tf.zeros([tf.shape(projected)[1], units], projected.dtype)
    arrays = [_array(projected, size) for size in (units, 4 * units, units)]

    def body(step: Any, hidden: Any, cell: Any, arrays: list[Any]) -> Any:
        gates = tf.tanh(halves * (projected[step] + hidden @ recurrent))
        let_in, forget, candidate, let_out = _by_gate(gates)
        cell = forget * cell + let_in * candidate
        hidden = let_out * tf.tanh(cell)
        kept = zip(arrays, (hidden, gates, cell), strict=True)
        return step + 1, hidden, cell, [array.write(step, k) for array, k in kept]

    start = (tf.constant(0), zeros, zeros, arrays)
    *_, arrays = tf.while_loop(
        lambda step, *_: step < time, body, start, maximum_iterations=time
    )
    hidden, gates, cells = (array.stack() for array in arrays)
    return hidden, gates, cells


@tf.function(jit_compile=True, autograph=False)
def _backward(upstream: Any, gates: Any, cells: Any, transposed: Any) -> Any:
    """Gradient with respect to the projected inputs, [time, batch, 4 units]."""
    time = _length(upstream)
    before = tf.concat([tf.zeros_like(cells[:1]), cells[:-1]], axis=0)

    def body(step: Any, by_gates: Any, by_cell: Any, array: Any) -> Any:
        let_in, forget, candidate, let_out = _by_gate(gates[step])
        squashed = tf.tanh(cells[step])
        by_hidden = upstream[step] + by_gates @ transposed
        by_cell += by_hidden * let_out * (1.0 - tf.square(squashed))
        by_gates = tf.concat(
            [
                by_cell * candidate * let_in * (1.0 - let_in),
                by_cell * before[step] * forget * (1.0 - forget),
                by_cell * let_in * (1.0 - tf.square(candidate)),
                by_hidden * squashed * let_out * (1.0 - let_out),
            ],
            axis=1,
        )
        return step - 1, by_gates, by_cell * forget, array.write(step, by_gates)

    start = (
        time - 1,
        tf.zeros_like(gates[0]),
        tf.zeros_like(cells[0]),
        _array(upstream, gates.shape[-1]),
    )
    *_, array = tf.while_loop(
        lambda step, *_: step >= 0, body, start, maximum_iterations=time
    )
    return array.stack()


def _halves(units: int, dtype: Any) -> Any:
    # One tanh for all gates, as sigmoid(x) = 0.5 + 0.5 tanh(x / 2).
    factors = np.repeat([0.5, 0.5, 1.0, 0.5], units)
    return tf.constant(factors, dtype)


def _by_gate(gates: Any) -> tuple[Any, Any, Any, Any]:
    let_in, forget, candidate, let_out = tf.split(gates, 4, axis=-1)
    return _sigmoid(let_in), _sigmoid(forget), candidate, _sigmoid(let_out)


def _sigmoid(tanh_of_half: Any) -> Any:
    return 0.5 + 0.5 * tanh_of_half


def _array(like: Any, size: int) -> tf.TensorArray:
    shape = [like.shape[1], size]
    return tf.TensorArray(like.dtype, _length(like), element_shape=shape)


def _length(values: Any) -> Any:
    return tf.shape(values)[0] if values.shape[0] is None else values.shape[0]


def _rows(values: Any) -> Any:
    return tf.reshape(values, [-1, values.shape[-1]])


def _swapped(values: Any) -> Any:
    return tf.transpose(values, [1, 0, 2])
