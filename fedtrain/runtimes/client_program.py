"""One client's contribution as a function that is compiled once, for any executor."""

from functools import partial
from threading import Lock
from typing import Any

import tensorflow as tf

from fedtrain.client_work.client_work import ClientWork
from fedtrain.core import seeds
from fedtrain.rounds.executor import ClientResult
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.packing import Chunk, packed_cohort, with_states
from fedtrain.runtimes.strategies import ChunkProgram, compiled


class ClientProgram:
    """The graph loop of the compiled runtime over a chunk of one client.

    Attributes:
      function: A ``tf.function`` of a ``Broadcast`` and a ``Chunk``, which may run in
        another process.
    """

    def __init__(self, work: ClientWork) -> None:
        self._work = work
        chunk_program = ChunkProgram(work, "graph")
        run = partial(chunk_program, even=False)
        self.function = compiled(
            lambda message, chunk: run(message, chunk), reduce_retracing=True
        )

    def packed(self, client: CohortClient, seed: seeds.HostSeed) -> Chunk:
        """The client's rows, batches, seed and state as tensors."""
        cohort = packed_cohort(
            self._work, [client], seed, chunk_size=1, same_shapes=False
        )
        return with_states(cohort.chunks[0], {client.client_id: client})

    def result(self, outputs: Any) -> ClientResult:
        """What ``function`` returned, for the one client."""
        contribution, states = outputs
        return ClientResult(
            contribution, tf.nest.map_structure(lambda leaf: leaf[0], states)
        )


class ClientPrograms:
    """A ``ClientProgram`` for each client work, made when first asked for."""

    def __init__(self) -> None:
        self._programs: dict[Any, ClientProgram] = {}
        self._lock = Lock()

    def of(self, work: ClientWork) -> ClientProgram:
        """The program of ``work``."""
        key = (work.step, work.finish)
        with self._lock:
            if key not in self._programs:
                self._programs[key] = ClientProgram(work)
            return self._programs[key]
