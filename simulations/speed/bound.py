"""The ceiling: the same SGD steps without federation, data in memory, by hand.

Three loops over batches, each one compiled function: a plain graph, XLA, and models
side by side (with and without XLA). None of them averages, copies or counts anything.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from simulations.speed.models import averaged, logits
from simulations.speed.stacked import stacked_logits
from simulations.speed.workload import Array, Workload


class Job(NamedTuple):
    """What one thread trains: some clients, in order."""

    positions: Sequence[int]
    run: Callable[[], Any]


class Loops(NamedTuple):
    """A strategy's jobs, and each client trained alone from the first weights."""

    jobs: list[Job]
    trained: Callable[[], list[list[Array]]]


def balanced(workload: Workload, num_parts: int) -> list[list[int]]:
    """Clients in ``num_parts`` lists of about equal numbers of steps, longest first."""
    sizes = [len(steps) for steps in workload.steps()]
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    totals = [0] * num_parts
    for position in np.argsort(sizes, kind="stable")[::-1]:
        part = int(np.argmin(totals))
        parts[part].append(int(position))
        totals[part] += sizes[position]
    return parts


def graph(workload: Workload, num_threads: int) -> Loops:
    """A ``tf.while_loop`` over slices of the rows; a client's last batch is short."""
    rows = tf.constant(workload.features), tf.constant(workload.labels)
    first = [tf.constant(array) for array in workload.weights]

    def batch(bounds: Any) -> Any:
        features, labels = (array[bounds[0] : bounds[1]] for array in rows)
        return features, labels, tf.ones(bounds[1:] - bounds[:1])

    specs = (_specs(first), tf.TensorSpec([None, 2], tf.int32))

    @tf.function(input_signature=specs, autograph=False)
    def loop(weights: Any, bounds: Any) -> Any:
        def body(i: Any, weights: Any) -> Any:
            return i + 1, _step(workload, weights, *batch(bounds[i]))

        start = (tf.constant(0), weights)
        return tf.while_loop(lambda i, _: i < tf.shape(bounds)[0], body, start)[1]

    def bounds_of(positions: Sequence[int]) -> Any:
        steps = [workload.steps()[position] for position in positions]
        return tf.constant(list(itertools.chain(*steps)), tf.int32)

    return _one_by_one(workload, num_threads, loop, first, bounds_of)


def xla(workload: Workload, num_threads: int) -> Loops:
    """The same under XLA, over rows padded to whole batches."""
    clients = [_padded(workload, i) for i in range(workload.num_clients)]
    first = [tf.constant(array) for array in workload.weights]
    specs = (_specs(first), _step_specs(clients[0], leading=1))

    @tf.function(input_signature=specs, autograph=False, jit_compile=True)
    def loop(weights: Any, steps: Any) -> Any:
        def body(i: Any, weights: Any) -> Any:
            return i + 1, _step(workload, weights, *(leaf[i] for leaf in steps))

        start = (tf.constant(0), weights)
        return tf.while_loop(lambda i, _: i < tf.shape(steps[0])[0], body, start)[1]

    def steps_of(positions: Sequence[int]) -> Any:
        leaves = zip(*(clients[position] for position in positions), strict=True)
        return tuple(tf.constant(np.concatenate(leaf)) for leaf in leaves)

    return _one_by_one(workload, num_threads, loop, first, steps_of)


def stacked(
    workload: Workload, num_threads: int, *, group: int = 0, jit_compile: bool = False
) -> Loops:
    """Clients side by side in groups of similar length, one step for all of them."""
    first = [tf.constant(array) for array in workload.weights]
    template = _padded(workload, 0)
    many = [tf.TensorSpec([None, *w.shape], w.dtype) for w in first]
    specs = (many, _step_specs(template, leading=2))

    @tf.function(input_signature=specs, autograph=False, jit_compile=jit_compile)
    def loop(weights: Any, steps: Any) -> Any:
        def body(i: Any, weights: Any) -> Any:
            return i + 1, _stacked_step(workload, weights, *(s[i] for s in steps))

        start = (tf.constant(0), weights)
        return tf.while_loop(lambda i, _: i < tf.shape(steps[0])[0], body, start)[1]

    def group_of(positions: Sequence[int]) -> tuple[Any, Any]:
        weights = [tf.repeat(leaf[tf.newaxis], len(positions), 0) for leaf in first]
        return weights, _side_by_side(workload, positions)

    parts = balanced(workload, num_threads)
    size = group or max(map(len, parts))
    groups = [[part[i : i + size] for i in range(0, len(part), size)] for part in parts]
    prepared = [[(ids, group_of(ids)) for ids in part] for part in groups]

    def run(part: list[Any]) -> Any:
        return [loop(*inputs) for _, inputs in part]

    def trained() -> list[list[Array]]:
        found: dict[int, list[Array]] = {}
        for positions, inputs in itertools.chain(*prepared):
            leaves = [leaf.numpy() for leaf in loop(*inputs)]
            for i, position in enumerate(positions):
                found[position] = [leaf[i] for leaf in leaves]
        return [found[position] for position in range(workload.num_clients)]

    jobs = [
        Job(ids, lambda part=part: run(part))
        for ids, part in zip(parts, prepared, strict=True)
    ]
    return Loops(jobs, trained)


def once(loops: Loops, pool: ThreadPoolExecutor) -> None:
    """Every job once, side by side; waits until the last weights are there."""
    futures = [pool.submit(_finished, job.run) for job in loops.jobs]
    for future in futures:
        future.result()


def update(workload: Workload, loops: Loops) -> list[Array]:
    """The weights that FedAvg would have after one round of these steps."""
    return averaged(workload, loops.trained())


def _one_by_one(
    workload: Workload, num_threads: int, loop: Any, first: Any, inputs_of: Any
) -> Loops:
    def job(positions: list[int]) -> Job:
        inputs = inputs_of(positions)
        return Job(positions, lambda: loop(first, inputs))

    def trained() -> list[list[Array]]:
        return [
            [leaf.numpy() for leaf in loop(first, inputs_of([position]))]
            for position in range(workload.num_clients)
        ]

    return Loops([job(part) for part in balanced(workload, num_threads)], trained)


def _finished(run: Callable[[], Any]) -> None:
    for leaf in tf.nest.flatten(run()):
        leaf.numpy()


def _step(
    workload: Workload, weights: Any, features: Any, labels: Any, mask: Any
) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(weights)
        outputs = logits(workload, weights, features)
        loss = tf.reduce_sum(_losses(workload, outputs, labels, mask))
    return _moved(weights, tape.gradient(loss, weights), workload.learning_rate)


def _stacked_step(
    workload: Workload, weights: Any, features: Any, labels: Any, mask: Any
) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(weights)
        outputs = stacked_logits(workload, weights, features)
        # Clients do not meet in the sum: its gradient holds every client's own.
        loss = tf.reduce_sum(_losses(workload, outputs, labels, mask))
    return _moved(weights, tape.gradient(loss, weights), workload.learning_rate)


def _losses(workload: Workload, outputs: Any, labels: Any, mask: Any) -> Any:
    """Mean over the rows of a batch, the last axis of ``mask``."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)
    real = mask
    if workload.kind == "characters":
        real = mask[..., tf.newaxis] * tf.cast(labels != 0, losses.dtype)
    axes = [-1, -2] if workload.kind == "characters" else [-1]
    count = tf.maximum(tf.reduce_sum(real, axes), 1.0)
    return tf.reduce_sum(losses * real, axes) / count


def _moved(weights: Any, gradients: Any, rate: float) -> Any:
    return [
        leaf - rate * tf.convert_to_tensor(gradient)
        for leaf, gradient in zip(weights, gradients, strict=True)
    ]


def _padded(workload: Workload, position: int) -> tuple[Array, Array, Array]:
    """Features, labels and mask of one client: [steps, batch, ...]."""
    features, labels = workload.client(position)
    size = workload.batch_size
    padding = -len(labels) % size

    def batches(array: Array) -> Array:
        widths = [(0, padding)] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths).reshape([-1, size, *array.shape[1:]])

    return batches(features), batches(labels), batches(np.ones(len(labels), np.float32))


def _side_by_side(workload: Workload, positions: Sequence[int]) -> Any:
    """Batches of several clients: [steps of the longest, clients, batch, ...]."""
    clients = [_padded(workload, position) for position in positions]
    longest = max(len(client[2]) for client in clients)

    def filled(array: Array) -> Array:
        widths = [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths)

    leaves = zip(*clients, strict=True)
    return tuple(
        tf.constant(np.stack([filled(array) for array in leaf], axis=1))
        for leaf in leaves
    )


def _specs(leaves: Any) -> Any:
    return [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in leaves]


def _step_specs(client: Any, *, leading: int) -> Any:
    return tuple(
        tf.TensorSpec([None] * leading + list(leaf.shape[1:]), leaf.dtype)
        for leaf in client
    )
