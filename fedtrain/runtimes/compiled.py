"""One compiled loop over clients and batches: the fast runtime.

A cohort is cut into chunks of neighbouring clients. Each chunk is one call of one graph
function that loops over its clients and, inside, over their batches; Python threads run
chunks side by side. Where the cohort is cut does not depend on the number of threads,
and partial sums are added in the order of the chunks, so the result is the same to the
bit for any number of workers (at one intra-op thread setting).
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
)
from fedtrain.core import nests, seeds, validate
from fedtrain.data.examples import Examples, concatenate, map_arrays
from fedtrain.models.model import Batch
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    CohortClient,
    RoundResult,
    batching_seed,
    client_seed,
    empty_total,
    mean_metrics,
    refuse_order_statistics,
    server_seed,
)

_CHUNKS = 16
# Autograph would rewrite every function below it and take four times as long to trace.
_compiled = partial(tf.function, autograph=False)


class CompiledRuntime:
    """Runs the clients of a round inside one compiled loop per chunk.

    Args:
      num_workers: Python threads; by default one for each core.
      chunk_size: Clients in a chunk; by default a sixteenth of the cohort, rounded up.
        Sums are rounded chunk by chunk, so another size changes the last bits.
    """

    def __init__(
        self, *, num_workers: int | None = None, chunk_size: int | None = None
    ) -> None:
        validate.positive_integer(
            num_workers=num_workers or 1, chunk_size=chunk_size or 1
        )
        self.num_workers = num_workers or os.cpu_count() or 1
        self.chunk_size = chunk_size
        self._programs: dict[Any, _Programs] = {}

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``; the same seed gives the same result."""
        refuse_order_statistics(round_)
        programs = self._programs_of(round_)
        message = programs.broadcast(state)
        total = programs.zero(message)
        parts = self._run_chunks(round_.client_work, programs, message, cohort, seed)
        client_states: dict[str, Any] = {}
        for clients, (partial_sum, states) in parts:
            total = nests.add(total, partial_sum)
            client_states |= _unstacked(states, clients)
        new_state = programs.server_update(state, total, tf.constant(server_seed(seed)))
        return RoundResult(new_state, mean_metrics(total.metrics), client_states)

    def _run_chunks(
        self,
        work: ClientWork,
        programs: "_Programs",
        message: Broadcast,
        cohort: Cohort,
        seed: seeds.Seed,
    ) -> list[tuple[Sequence[CohortClient], Any]]:
        size = self.chunk_size or -(-max(len(cohort), 1) // _CHUNKS)
        chunks = [cohort[i : i + size] for i in range(0, len(cohort), size)]

        def run(clients: Sequence[CohortClient]) -> Any:
            return programs.chunk(message, _packed(work, clients, seed))

        if self.num_workers == 1 or len(chunks) == 1:
            results = [run(clients) for clients in chunks]
        else:
            with ThreadPoolExecutor(self.num_workers) as pool:
                results = list(pool.map(run, chunks))
        return list(zip(chunks, results, strict=True))

    def _programs_of(self, round_: Round) -> "_Programs":
        key = (round_.client_work.step, round_.client_work.finish, round_.server_update)
        if key not in self._programs:
            self._programs[key] = _programs(round_)
        return self._programs[key]


class _Chunk(NamedTuple):
    """Neighbouring clients, as tensors of one call.

    ``rows`` holds row numbers int32 [steps of all clients, batch]; padding is negative,
    ``-1 - r`` where ``r`` is a row of the same client. Client ``i`` owns steps
    ``first_step[i]`` to ``first_step[i + 1]``.
    """

    features: Any
    labels: Any
    weights: Any
    rows: Any
    first_step: Any
    seeds: Any
    num_examples: Any
    states: Any


class _Programs(NamedTuple):
    broadcast: Any
    chunk: Any
    zero: Any
    server_update: Any


def _programs(round_: Round) -> _Programs:
    work = round_.client_work

    def one_client(
        message: Broadcast, client: ClientInput, first: Any, last: Any, chunk: _Chunk
    ) -> Any:
        def body(step: Any, carry: Any) -> Any:
            return step + 1, work.step(carry, _batch(chunk, step))

        start = (first, work.start(message, client))
        _, carry = tf.while_loop(lambda step, _: step < last, body, start)
        return work.finish(message, carry)

    def run_chunk(message: Broadcast, chunk: _Chunk) -> Any:
        return _sum_over_clients(one_client, work, message, chunk)

    return _Programs(
        broadcast=_compiled(round_.broadcast),
        chunk=_CompiledOnce(run_chunk),
        zero=_compiled(partial(empty_total, work)),
        server_update=_compiled(round_.server_update),
    )


class _CompiledOnce:
    """A function of a message and a chunk, compiled for chunks of any length."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._compiled: dict[Any, Any] = {}
        self._lock = Lock()

    def __call__(self, message: Broadcast, chunk: _Chunk) -> Any:
        specs = (
            tf.nest.map_structure(tf.TensorSpec.from_tensor, message),
            _any_length(chunk),
        )
        key = str(specs)
        with self._lock:
            if key not in self._compiled:
                function = _compiled(self._function, input_signature=specs)
                function.get_concrete_function()
                self._compiled[key] = function
        return self._compiled[key](message, chunk)

    def num_compiled(self) -> int:
        """How often a new structure made it compile again."""
        return len(self._compiled)


def _any_length(chunk: _Chunk) -> Any:
    """The chunk's types, with first dimensions (and batch sizes) left open."""
    specs = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), chunk
    )
    return specs._replace(rows=tf.TensorSpec([None, None], tf.int32))


def _sum_over_clients(
    one_client: Any, work: ClientWork, message: Broadcast, chunk: _Chunk
) -> tuple[Contribution, Any]:
    num_clients = tf.shape(chunk.seeds)[0]
    slots = [
        tf.TensorArray(leaf.dtype, num_clients, element_shape=leaf.shape[1:])
        for leaf in tf.nest.flatten(chunk.states)
    ]

    def body(i: Any, total: Contribution, slots: list[Any]) -> Any:
        state = tf.nest.map_structure(lambda leaf: leaf[i], chunk.states)
        client = ClientInput(state, chunk.seeds[i], chunk.num_examples[i])
        first, last = chunk.first_step[i], chunk.first_step[i + 1]
        contribution, new_state = one_client(message, client, first, last, chunk)
        leaves = tf.nest.flatten(new_state)
        slots = [s.write(i, leaf) for s, leaf in zip(slots, leaves, strict=True)]
        return i + 1, nests.add(total, contribution), slots

    start = (tf.constant(0), empty_total(work, message), slots)
    _, total, slots = tf.while_loop(lambda i, *_: i < num_clients, body, start)
    states = [slot.stack() for slot in slots]
    return total, tf.nest.pack_sequence_as(chunk.states, states)


def _batch(chunk: _Chunk, step: Any) -> Batch:
    rows = chunk.rows[step]
    mask = tf.cast(rows >= 0, tf.float32)
    at = tf.where(rows >= 0, rows, -1 - rows)
    return Batch(
        features=map_arrays(lambda array: tf.gather(array, at), chunk.features),
        labels=tf.gather(chunk.labels, at),
        weights=mask * tf.gather(chunk.weights, at),
        mask=mask,
    )


def _packed(
    work: ClientWork, clients: Sequence[CohortClient], seed: seeds.Seed
) -> _Chunk:
    examples = _at_least_one_row(concatenate([c.examples for c in clients]))
    sizes = [client.examples.num_examples for client in clients]
    client_seeds = [client_seed(seed, client.client_id) for client in clients]
    tables = [
        work.batching.indices(client.examples, batching_seed(own_seed))
        for client, own_seed in zip(clients, client_seeds, strict=True)
    ]
    ones = np.ones(examples.num_examples, np.float32)
    weights = ones if examples.weights is None else examples.weights
    return _Chunk(
        features=map_arrays(tf.convert_to_tensor, examples.features),
        labels=tf.convert_to_tensor(examples.labels),
        weights=tf.convert_to_tensor(weights, tf.float32),
        rows=tf.convert_to_tensor(_joined(tables, sizes)),
        first_step=tf.constant(np.cumsum([0, *map(len, tables)]), tf.int32),
        seeds=tf.constant(np.stack(client_seeds)),
        num_examples=tf.constant(sizes, tf.int32),
        states=tf.nest.map_structure(_stack, *[client.state for client in clients]),
    )


def _joined(tables: list[Any], sizes: list[int]) -> Any:
    """Tables of row numbers one below the other, shifted to the chunk's rows."""
    width = max(table.shape[1] for table in tables)
    joined = np.empty([sum(map(len, tables)), width], np.int32)
    last_row = max(sum(sizes) - 1, 0)
    step, row = 0, 0
    for table, size in zip(tables, sizes, strict=True):
        own = joined[step : step + len(table)]
        # Padding never shows a client another's rows, whatever a layer does with it.
        own[:] = -1 - min(row, last_row)
        own[:, : table.shape[1]] = np.where(table >= 0, table + row, own[:, :1])
        step, row = step + len(table), row + size
    return joined


def _at_least_one_row(examples: Examples) -> Examples:
    """Padding points at row 0, so there has to be one."""
    if examples.num_examples:
        return examples

    def zero_row(array: Any) -> Any:
        return np.zeros([1, *array.shape[1:]], array.dtype)

    return Examples(
        features=map_arrays(zero_row, examples.features),
        labels=zero_row(examples.labels),
    )


def _stack(*leaves: Any) -> tf.Tensor:
    return tf.stack([tf.convert_to_tensor(leaf) for leaf in leaves])


def _unstacked(states: Any, clients: Sequence[CohortClient]) -> dict[str, Any]:
    return {
        client.client_id: tf.nest.map_structure(lambda leaf, i=i: leaf[i], states)
        for i, client in enumerate(clients)
    }
