"""How the clients of one chunk are computed: one after another, or side by side.

- ``graph``: a graph loop over clients and, inside, over their batches.
- ``xla``: the same loops, compiled by XLA.
- ``stacked``: one loop over steps, all clients of the chunk side by side, each with
  weights of its own (``tf.vectorized_map``).
- ``stacked_xla``: the same, compiled by XLA.

All give the same sums up to rounding. Which is fastest depends on the model: XLA and
stacking win by far for small dense layers, and lose by far for convolutions on a CPU.
"""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, Literal, get_args

import tensorflow as tf

from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
)
from fedtrain.core import nests
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import Batch, without_trailing_padding
from fedtrain.rounds.runtime import empty_total
from fedtrain.runtimes.flat_function import FlatFunction, exact_specs, signature
from fedtrain.runtimes.packing import Chunk, gathered

Strategy = Literal["graph", "xla", "stacked", "stacked_xla"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
WORDS: dict[Strategy, str] = {
    "graph": "graph loop",
    "xla": "XLA loop",
    "stacked": "stacked clients",
    "stacked_xla": "stacked clients with XLA",
}

# Autograph would rewrite every function below it and take four times as long to trace.
compiled = partial(tf.function, autograph=False)


class ChunkProgram:
    """A chunk's sum, compiled once for each shape that it has to be compiled for.

    Called with a ``Broadcast`` and a ``Chunk``, returns the sum of the chunk's
    contributions and its clients' stacked states.
    """

    def __init__(self, work: ClientWork, strategy: Strategy) -> None:
        if work.mixes_rows and strategy != "graph":
            raise ConfigError(
                f"strategy is {strategy!r}, which pads batches, but this client work "
                'mixes the rows of a batch (BatchNormalization). Use "graph", or '
                "GroupNormalization or LayerNormalization."
            )
        self._work = work
        self._strategy = strategy
        self._compiled: dict[Any, FlatFunction] = {}
        self._lock = Lock()

    @property
    def same_shapes(self) -> bool:
        """Whether each new shape of a chunk has to be compiled."""
        return self._strategy != "graph"

    def __call__(self, message: Broadcast, chunk: Chunk, *, even: bool) -> Any:
        """The sum of contributions, and the new client states [clients, ...].

        Args:
          message: What the clients receive.
          chunk: The clients.
          even: Promises that all places are taken and all make equally many steps.

        Raises:
          ConfigError: If the strategy cannot run this work; the graph loop always can.
        """
        even = even and self._strategy.startswith("stacked")
        key = (even, *signature(message), *self._chunk_signature(chunk))
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._tried(message, chunk, even=even)
        return self._compiled[key](message, chunk)

    def _tried(self, message: Broadcast, chunk: Chunk, *, even: bool) -> FlatFunction:
        """A compiled function that was seen to run."""
        specs = (exact_specs(message), self._chunk_specs(chunk))
        if self._strategy == "graph":
            return self._trace(specs, even=even)
        try:
            function = self._trace(specs, even=even)
            # XLA compiles, and so refuses, only when it is called; no step is made.
            idle = tf.zeros_like(chunk.num_steps)
            function(message, chunk._replace(num_steps=idle))
        except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
            raise ConfigError(
                f"strategy is {self._strategy!r}, which this client work and model "
                f"cannot be run with: {_first_line(error)} Leave strategy out to find "
                'the fastest that can, or use "graph", which always can.'
            ) from error
        return function

    def operations(self) -> set[str]:
        """Names of all TensorFlow operations in what was compiled so far."""
        names = [function.operations() for function in self._compiled.values()]
        return set().union(*names)

    def num_compiled(self) -> int:
        """How often a new structure made it compile again."""
        return len(self._compiled)

    def _chunk_specs(self, chunk: Chunk) -> Any:
        return exact_specs(chunk) if self.same_shapes else _any_length(chunk)

    def _chunk_signature(self, chunk: Chunk) -> tuple[Any, ...]:
        if self.same_shapes:
            return signature(chunk)
        rest = tf.nest.flatten(chunk._replace(rows=(), num_clients=()))
        return tuple((*leaf.shape[1:], leaf.dtype) for leaf in rest)

    def _trace(self, specs: Any, *, even: bool) -> FlatFunction:
        body = _function(self._work, self._strategy, even=even)
        if self._strategy == "stacked_xla":
            # Vectorised before XLA hears of it: inside, its captures would get lost.
            body = compiled(body).get_concrete_function(*specs)
        return FlatFunction(body, specs, jit_compile=self._strategy.endswith("xla"))


def _function(
    work: ClientWork, strategy: Strategy, *, even: bool
) -> Callable[[Broadcast, Chunk], Any]:
    if strategy.startswith("stacked"):
        return lambda message, chunk: _side_by_side(work, message, chunk, even=even)
    trims = strategy == "graph"
    return lambda message, chunk: _one_after_another(work, message, chunk, trims=trims)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0][:200] if lines else ''} ({type(error).__name__})."


def _any_length(chunk: Chunk) -> Any:
    """The chunk's types, with first dimensions, steps and batch sizes left open."""
    specs = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype),
        chunk._replace(num_clients=()),
    )
    return specs._replace(
        rows=tf.TensorSpec([None, None, None], tf.int32),
        num_clients=tf.TensorSpec([], tf.int32),
    )


def _one_after_another(
    work: ClientWork, message: Broadcast, chunk: Chunk, *, trims: bool
) -> tuple[Contribution, Any]:
    num_places = chunk.seeds.shape[0] or tf.shape(chunk.seeds)[0]
    slots = [
        tf.TensorArray(leaf.dtype, num_places, element_shape=leaf.shape[1:])
        for leaf in tf.nest.flatten(chunk.states)
    ]

    def body(i: Any, total: Contribution, slots: list[Any]) -> Any:
        contribution, new_state = _one_client(work, message, chunk, i, trims=trims)
        leaves = tf.nest.flatten(new_state)
        slots = [s.write(i, leaf) for s, leaf in zip(slots, leaves, strict=True)]
        return i + 1, nests.add(total, contribution), slots

    start = (tf.constant(0), empty_total(work, message), slots)
    _, total, slots = tf.while_loop(lambda i, *_: i < chunk.num_clients, body, start)
    states = [slot.stack() for slot in slots]
    return total, tf.nest.pack_sequence_as(chunk.states, states)


def _one_client(
    work: ClientWork, message: Broadcast, chunk: Chunk, i: Any, *, trims: bool
) -> tuple[Contribution, Any]:
    state = tf.nest.map_structure(lambda leaf: leaf[i], chunk.states)
    client = ClientInput(state, chunk.seeds[i], chunk.num_examples[i])
    last = chunk.num_steps[i]

    def body(step: Any, carry: Any) -> Any:
        batch = Batch(*gathered(chunk, chunk.rows[i, step]))
        return step + 1, work.step(
            carry, without_trailing_padding(batch) if trims else batch
        )

    start = (tf.constant(0), work.start(message, client))
    _, carry = tf.while_loop(lambda step, _: step < last, body, start)
    return work.finish(message, carry)


def _side_by_side(
    work: ClientWork, message: Broadcast, chunk: Chunk, *, even: bool
) -> tuple[Contribution, Any]:
    clients = ClientInput(chunk.states, chunk.seeds, chunk.num_examples)
    carry = _vectorised(lambda client: work.start(message, client), clients)

    def one_step(given: Any) -> Any:
        carry, active, batch = given
        stepped = work.step(carry, Batch(*batch))
        return stepped if even else nests.where(active, stepped, carry)

    def body(step: Any, carry: Any) -> Any:
        batches = gathered(chunk, chunk.rows[:, step])
        active = step < chunk.num_steps
        return step + 1, _vectorised(one_step, (carry, active, batches))

    last = tf.reduce_max(chunk.num_steps)
    _, carry = tf.while_loop(lambda step, _: step < last, body, (tf.constant(0), carry))
    contributions, states = _vectorised(lambda c: work.finish(message, c), carry)
    return _sum_of_real(contributions, chunk, even=even), states


def _vectorised(function: Callable[[Any], Any], over: Any) -> Any:
    return tf.vectorized_map(function, over, fallback_to_while_loop=False)


def _sum_of_real(contributions: Any, chunk: Chunk, *, even: bool) -> Any:
    """The sum over clients, without the empty places."""
    is_real = tf.range(tf.shape(chunk.num_steps)[0]) < chunk.num_clients

    def total(leaf: Any) -> Any:
        if not even:
            places = tf.reshape(is_real, [-1] + [1] * (leaf.shape.rank - 1))
            leaf = tf.where(places, leaf, tf.zeros_like(leaf))
        return tf.reduce_sum(leaf, axis=0)

    return tf.nest.map_structure(total, contributions)
