"""One round's compiled parts, and how a cohort passes through them.

What the runtime that runs rounds, the trials that find the fastest way, and the
runtime over several devices have in common.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from fedtrain.client_work.client_work import Broadcast, ClientWork, Contribution
from fedtrain.core import nests, seeds
from fedtrain.rounds.round import Round
from fedtrain.rounds.runtime import Cohort, empty_total
from fedtrain.runtimes.execution import Execution
from fedtrain.runtimes.packing import (
    PackedChunk,
    PackedCohort,
    packed_cohort,
    unstacked,
    with_states,
)
from fedtrain.runtimes.precision import computing_in
from fedtrain.runtimes.strategies import ChunkProgram, Strategy, compiled


class CohortSum(NamedTuple):
    """What a cohort adds up to.

    Attributes:
      total: The summed ``Contribution``.
      client_states: New client states by client id.
    """

    total: Contribution
    client_states: Mapping[str, Any]


class Engine:
    """The compiled parts of one round."""

    def __init__(self, round_: Round) -> None:
        self.work = round_.client_work
        self.broadcast = compiled(round_.broadcast)
        self.server_update = compiled(round_.server_update)
        self._add_up = compiled(partial(_add_up, self.work))
        self._programs: dict[Strategy, ChunkProgram] = {}
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def program(self, strategy: Strategy) -> ChunkProgram:
        """The program of one chunk."""
        return self._programs.setdefault(strategy, ChunkProgram(self.work, strategy))

    def pack(
        self, cohort: Cohort, seed: seeds.Seed, execution: Execution
    ) -> PackedCohort:
        """Draws the cohort's batches and makes tensors; client states come later."""
        return packed_cohort(
            self.work,
            cohort,
            seed,
            chunk_size=execution.clients_in_chunk(len(cohort)),
            same_shapes=self.program(execution.strategy).same_shapes,
        )

    def run(
        self,
        message: Broadcast,
        packed: PackedCohort,
        cohort: Cohort,
        execution: Execution,
    ) -> CohortSum:
        """The sum over the cohort, chunks side by side, added in a fixed order."""
        program = self.program(execution.strategy)
        clients = {client.client_id: client for client in cohort}

        def run_chunk(part: PackedChunk) -> Any:
            return program(message, with_states(part, clients), even=part.even)

        with computing_in(execution.precision):
            results = self._in_order(run_chunk, packed.chunks, execution.num_workers)
        client_states: dict[str, Any] = {}
        for part, (_, states) in zip(packed.chunks, results, strict=True):
            client_states |= unstacked(states, part.clients)
        return CohortSum(
            self._add_up(message, [partial_sum for partial_sum, _ in results]),
            client_states,
        )

    def _in_order(
        self,
        function: Callable[[PackedChunk], Any],
        parts: Sequence[PackedChunk],
        num_workers: int,
    ) -> list[Any]:
        if num_workers == 1 or len(parts) == 1:
            return [function(part) for part in parts]
        pool = self._pools.setdefault(num_workers, ThreadPoolExecutor(num_workers))
        return list(pool.map(function, parts))


def _add_up(
    work: ClientWork, message: Broadcast, partial_sums: list[Contribution]
) -> Contribution:
    total = empty_total(work, message)
    for partial_sum in partial_sums:
        total = nests.add(total, partial_sum)
    return total
