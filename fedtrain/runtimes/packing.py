"""A cohort as a few chunks of tensors: what one call of a compiled program takes.

Clients are put in order of their number of steps, the longest first, and cut into
chunks of neighbours. So clients of a chunk have about equally many steps, which keeps
padding small where a strategy runs them in lockstep, and the longest chunks start
first. The order depends on the cohort alone, never on threads or time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fedtrain.client_work.batching import Batching, Tables, batch_tables
from fedtrain.client_work.client_work import ClientWork
from fedtrain.core import seeds
from fedtrain.data.examples import Examples, map_arrays
from fedtrain.rounds.runtime import (
    Cohort,
    CohortClient,
    batching_seeds,
    client_seeds,
)


class Chunk(NamedTuple):
    """Some clients of a cohort, as tensors of one call.

    Attributes:
      features: Rows of all its clients, one client after another, [rows, ...].
      labels: [rows, ...].
      weights: float32 [rows].
      rows: Row numbers of each batch, int32 [clients, steps, batch]; padding is
        negative, ``-1 - r`` where ``r`` is a row of the same client.
      num_steps: int32 [clients]: how many of the steps are a client's own.
      seeds: int32 [clients, 2].
      num_examples: int32 [clients].
      num_clients: int32 scalar: real clients; the places after them are empty.
      states: What clients kept, stacked, [clients, ...].
    """

    features: Any
    labels: Any
    weights: Any
    rows: Any
    num_steps: Any
    seeds: Any
    num_examples: Any
    num_clients: Any
    states: Any


class PackedChunk(NamedTuple):
    """A chunk without client states, and whose it is.

    Attributes:
      clients: Client ids, in the chunk's order.
      chunk: Its ``states`` are empty until the round starts.
      even: Whether every place holds a client and all make equally many steps.
    """

    clients: tuple[str, ...]
    chunk: Chunk
    even: bool


class PackedCohort(NamedTuple):
    """A cohort, ready to be run.

    Attributes:
      chunks: In the order in which their sums are added.
      num_rows: Rows that all steps of all clients see, padding left out.
      num_batch_rows: The same with every batch filled up to the largest.
      num_lockstep_rows: The same with every client of a chunk making as many steps as
        the one with the most: what stacked clients compute.
    """

    chunks: tuple[PackedChunk, ...]
    num_rows: int
    num_batch_rows: int
    num_lockstep_rows: int


class _Cohort(NamedTuple):
    """What is drawn and counted for all clients of a cohort at once, in its order."""

    clients: Cohort
    seeds: npt.NDArray[np.int32]
    tables: Tables
    sizes: npt.NDArray[np.int64]


class _Frame(NamedTuple):
    """The sizes of a chunk's dimensions: a program may be compiled for each."""

    clients: int
    steps: int
    batch: int
    rows: int


def packed_cohort(
    work: ClientWork,
    cohort: Cohort,
    seed: seeds.Seed,
    *,
    chunk_size: int,
    same_shapes: bool,
) -> PackedCohort:
    """Draws each client's batches and packs the cohort; client states are left out.

    Args:
      work: Says how rows are batched.
      cohort: Its clients' ``state`` is not looked at.
      seed: The round's.
      chunk_size: Clients in a chunk.
      same_shapes: Whether every chunk gets the same shapes, as XLA wants. The shapes
        come from a coarse grid, so that other cohorts give the same ones.
    """
    if not cohort:
        return PackedCohort((), 0, 0, 0)
    drawn = _drawn(work.batching, cohort, seed)
    order = np.argsort(-drawn.tables.num_steps, kind="stable")
    parts = [order[i : i + chunk_size] for i in range(0, len(order), chunk_size)]
    frames = [_frame(drawn, part) for part in parts]
    if same_shapes:
        frames = [_common_frame(frames, chunk_size, work.batching)] * len(parts)
    chunks = tuple(
        _packed(drawn, part, frame) for part, frame in zip(parts, frames, strict=True)
    )
    num_rows = int(np.count_nonzero(drawn.tables.rows >= 0))
    width = chunks[0].chunk.rows.shape[2]
    num_batch_rows = int(drawn.tables.num_steps.sum()) * width
    return PackedCohort(
        chunks, num_rows, num_batch_rows, sum(map(_lockstep_rows, chunks))
    )


def with_states(packed: PackedChunk, cohort: dict[str, CohortClient]) -> Chunk:
    """The chunk with what its clients kept, zeros at empty places."""
    states = [cohort[client_id].state for client_id in packed.clients]
    if not tf.nest.flatten(states[0]):
        return packed.chunk._replace(states=states[0])
    empty = len(packed.chunk.num_steps) - len(states)
    stacked = tf.nest.map_structure(lambda *leaves: _stack(leaves, empty), *states)
    return packed.chunk._replace(states=stacked)


def unstacked(states: Any, clients: Sequence[str]) -> dict[str, Any]:
    """Stacked client states by client id."""
    if not tf.nest.flatten(states):
        return dict.fromkeys(clients, states)
    return {
        client_id: tf.nest.map_structure(lambda leaf, i=i: leaf[i], states)
        for i, client_id in enumerate(clients)
    }


def _drawn(batching: Batching, cohort: Cohort, seed: seeds.Seed) -> _Cohort:
    own = client_seeds(seed, [client.client_id for client in cohort])
    examples = [client.examples for client in cohort]
    tables = batch_tables(batching, examples, batching_seeds(own))
    sizes = np.array([e.num_examples for e in examples], np.int64)
    return _Cohort(cohort, own, tables, sizes)


def _frame(drawn: _Cohort, part: npt.NDArray[np.int64]) -> _Frame:
    return _Frame(
        clients=len(part),
        steps=int(drawn.tables.num_steps[part].max()),
        batch=drawn.tables.rows.shape[1],
        rows=max(int(drawn.sizes[part].sum()), 1),
    )


def _common_frame(frames: list[_Frame], chunk_size: int, batching: Batching) -> _Frame:
    _, steps, batch, rows = (max(sizes) for sizes in zip(*frames, strict=True))
    # Only the batch's size touches the arithmetic; a fixed one is left as it is.
    fixed = batch == getattr(batching, "batch_size", None)
    return _Frame(
        chunk_size, _on_grid(steps), batch if fixed else _on_grid(batch), _on_grid(rows)
    )


def _on_grid(size: int) -> int:
    """``size`` rounded up to a multiple of a quarter of the power of two below it."""
    spacing = max(1 << (max(size, 1).bit_length() - 3), 1) if size > 4 else 1
    return -(-size // spacing) * spacing


def _packed(drawn: _Cohort, part: npt.NDArray[np.int64], frame: _Frame) -> PackedChunk:
    clients = [drawn.clients[position] for position in part]
    examples = [client.examples for client in clients]
    steps = drawn.tables.num_steps[part]
    empty = frame.clients - len(part)
    chunk = Chunk(
        features=_feature_rows(examples, frame.rows),
        labels=_rows([e.labels for e in examples], frame.rows),
        weights=_rows([_weights(e) for e in examples], frame.rows),
        rows=tf.constant(_row_numbers(drawn, part, frame)),
        num_steps=tf.constant(np.pad(steps, (0, empty)), tf.int32),
        seeds=tf.constant(np.pad(drawn.seeds[part], ((0, empty), (0, 0)))),
        num_examples=tf.constant(np.pad(drawn.sizes[part], (0, empty)), tf.int32),
        num_clients=tf.constant(len(part), tf.int32),
        states=(),
    )
    even = empty == 0 and int(steps.min()) == int(steps.max())
    return PackedChunk(tuple(client.client_id for client in clients), chunk, even)


def _lockstep_rows(packed: PackedChunk) -> int:
    clients, _, batch = packed.chunk.rows.shape
    return int(clients * batch * np.max(packed.chunk.num_steps))


def _row_numbers(
    drawn: _Cohort, part: npt.NDArray[np.int64], frame: _Frame
) -> npt.NDArray[np.int32]:
    """Each client's row numbers, int32 [clients, steps, batch], of the chunk's rows."""
    sizes, step = drawn.sizes[part], np.arange(frame.steps)
    first_row = np.minimum(np.cumsum(sizes) - sizes, max(int(sizes.sum()) - 1, 0))
    is_own = step < drawn.tables.num_steps[part, None]
    at = np.where(is_own, drawn.tables.first_steps()[part, None] + step, 0)
    # Padding never shows a client another's rows, whatever a layer does with it.
    start = first_row[:, None, None]
    joined = np.full([frame.clients, frame.steps, frame.batch], -1, np.int32)
    own, padding = joined[: len(part)], -1 - start
    own[:] = padding
    if len(drawn.tables.rows):
        table = drawn.tables.rows[at]
        real = is_own[:, :, None] & (table >= 0)
        own[:, :, : table.shape[2]] = np.where(real, table + start, padding)
    return joined


def _feature_rows(examples: list[Examples], num_rows: int) -> Any:
    first = examples[0].features
    if isinstance(first, dict):
        return {
            name: _rows([e.features[name] for e in examples], num_rows)
            for name in first
        }
    return _rows([e.features for e in examples], num_rows)


def _rows(arrays: list[Any], num_rows: int) -> tf.Tensor:
    """All rows one after another, then zeros up to ``num_rows``."""
    missing = num_rows - sum(map(len, arrays))
    if missing:
        first = arrays[0]
        arrays = [*arrays, np.zeros([missing, *first.shape[1:]], first.dtype)]
    return tf.convert_to_tensor(np.concatenate(arrays))


def _weights(examples: Examples) -> npt.NDArray[np.float32]:
    if examples.weights is None:
        return np.ones(examples.num_examples, np.float32)
    return np.asarray(examples.weights, np.float32)


def _stack(leaves: Sequence[Any], empty: int) -> tf.Tensor:
    tensors = [tf.convert_to_tensor(leaf) for leaf in leaves]
    return tf.stack(tensors + [tf.zeros_like(tensors[0])] * empty)


def gathered(chunk: Chunk, rows: Any) -> tuple[Any, Any, Any, Any]:
    """Features, labels, weights and mask of the places in ``rows``, any shape."""
    mask = tf.cast(rows >= 0, tf.float32)
    at = tf.where(rows >= 0, rows, -1 - rows)
    features = map_arrays(lambda array: tf.gather(array, at), chunk.features)
    labels = tf.gather(chunk.labels, at)
    return features, labels, mask * tf.gather(chunk.weights, at), mask
