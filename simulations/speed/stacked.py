"""The workloads' models for many clients at once, each with its own weights.

Every weight and row has a leading axis of clients. Convolutions are left out: with a
kernel for each client they were several times slower than one client after another.
"""

from typing import Any

import tensorflow as tf

from simulations.speed.workload import Workload


def can_stack(workload: Workload) -> bool:
    """Whether there is a stacked form: no convolutions."""
    return all(array.ndim < 4 for array in workload.weights)


def stacked_logits(workload: Workload, weights: list[Any], features: Any) -> Any:
    """Outputs [clients, batch, ...] of every client's model on its own rows."""
    if workload.kind == "characters":
        return _characters(weights, features)
    values = features
    for i in range(0, len(weights), 2):
        values = values @ weights[i] + weights[i + 1][:, tf.newaxis]
        if i < len(weights) - 2:
            values = tf.nn.relu(values)
    return values


def _characters(weights: list[Any], features: Any) -> Any:
    values = tf.gather(weights[0], features, batch_dims=1)
    values = _lstm(values, *weights[1:4])
    values = _lstm(values, *weights[4:7])
    return _dense(values, weights[7], weights[8])


def _dense(values: Any, kernel: Any, bias: Any) -> Any:
    """[clients, batch, time, features] -> [clients, batch, time, units]."""
    shape = tf.shape(values)
    rows = tf.reshape(values, [shape[0], -1, values.shape[-1]])
    outputs = rows @ kernel + bias[:, tf.newaxis]
    return tf.reshape(outputs, tf.concat([shape[:-1], [kernel.shape[-1]]], 0))


def _lstm(values: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
    projected = tf.transpose(_dense(values, kernel, bias), [2, 0, 1, 3])
    projected = tf.ensure_shape(
        projected, [values.shape[2], None, None, kernel.shape[-1]]
    )
    return tf.transpose(_over_time(projected, recurrent), [1, 2, 0, 3])


@tf.custom_gradient
def _over_time(projected: Any, recurrent: Any) -> Any:
    """Hidden states [time, clients, batch, units]; gates in the workload's order."""
    hidden, gates, cells = _forward(projected, recurrent)

    def gradient(upstream: Any) -> tuple[Any, Any]:
        by_gate = _backward(upstream, gates, cells, recurrent)
        before = tf.concat([tf.zeros_like(hidden[:1]), hidden[:-1]], axis=0)
        left, right = _rows_by_client(before), _rows_by_client(by_gate)
        return by_gate, tf.matmul(left, right, transpose_a=True)

    return hidden, gradient


def _forward(projected: Any, recurrent: Any) -> Any:
    time, units = projected.shape[0], recurrent.shape[1]
    zeros = tf.zeros_like(projected[0, ..., :units])
    arrays = [_array(time, size) for size in (units, 4 * units, units)]

    def body(step: Any, hidden: Any, cell: Any, arrays: Any) -> Any:
        parts = tf.split(projected[step] + hidden @ recurrent, 4, axis=-1)
        let_in, forget, let_out = (tf.sigmoid(parts[i]) for i in (0, 1, 3))
        candidate = tf.tanh(parts[2])
        cell = forget * cell + let_in * candidate
        hidden = let_out * tf.tanh(cell)
        gates = tf.concat([let_in, forget, candidate, let_out], -1)
        kept = (hidden, gates, cell)
        arrays = [a.write(step, k) for a, k in zip(arrays, kept, strict=True)]
        return step + 1, hidden, cell, arrays

    start = (tf.constant(0), zeros, zeros, arrays)
    *_, arrays = tf.while_loop(
        lambda step, *_: step < time, body, start, maximum_iterations=time
    )
    return [array.stack() for array in arrays]


def _backward(upstream: Any, gates: Any, cells: Any, recurrent: Any) -> Any:
    """Gradient with respect to the projected inputs, [time, clients, batch, ...]."""
    time = upstream.shape[0]
    before = tf.concat([tf.zeros_like(cells[:1]), cells[:-1]], axis=0)
    let_in, forget, candidate, let_out = tf.split(gates, 4, axis=-1)
    squashed = tf.tanh(cells)
    slopes = tf.concat(
        [
            candidate * let_in * (1.0 - let_in),
            before * forget * (1.0 - forget),
            let_in * (1.0 - tf.square(candidate)),
            squashed * let_out * (1.0 - let_out),
        ],
        axis=-1,
    )
    transposed = tf.linalg.matrix_transpose(recurrent)
    through_cell = let_out * (1.0 - tf.square(squashed))
    zeros = tf.zeros_like(upstream[0])

    def body(step: Any, by_hidden: Any, by_cell: Any, array: Any) -> Any:
        by_hidden += upstream[step]
        by_cell += by_hidden * through_cell[step]
        reached = tf.concat([by_cell, by_cell, by_cell, by_hidden], axis=-1)
        by_gate = reached * slopes[step]
        kept = array.write(step, by_gate)
        return step - 1, by_gate @ transposed, by_cell * forget[step], kept

    start = (tf.constant(time - 1), zeros, zeros, _array(time, gates.shape[-1]))
    *_, array = tf.while_loop(
        lambda step, *_: step >= 0, body, start, maximum_iterations=time
    )
    return array.stack()


def _rows_by_client(values: Any) -> Any:
    """[time, clients, batch, units] -> [clients, time * batch, units]."""
    by_client = tf.transpose(values, [1, 0, 2, 3])
    return tf.reshape(by_client, [tf.shape(values)[1], -1, values.shape[-1]])


def _array(time: int, size: int) -> tf.TensorArray:
    return tf.TensorArray(tf.float32, time, element_shape=[None, None, size])
