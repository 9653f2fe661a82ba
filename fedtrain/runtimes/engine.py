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
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import Cohort, empty_total
from fedtrain.runtimes.execution import Execution
from fedtrain.runtimes.flat_function import FlatFunctions
from fedtrain.runtimes.packing import (
    PackedChunk,
    PackedCohort,
    packed_cohort,
    unstacked,
    with_states,
)
from fedtrain.runtimes.precision import (
    Precision,
    computing_in,
    refuse_rounded_sums,
)
from fedtrain.runtimes.strategies import ChunkProgram, Strategy

# For each number of sums another program adds them up, so there are at most so many.
_MOST_SUMS = 16


def padding_share(packed: PackedCohort, strategy: Strategy) -> float:
    """Share of the rows that ``strategy`` computes for nothing, from 0 to 1."""
    computed = {
        "graph": packed.num_rows,
        "xla": packed.num_batch_rows,
        "stacked": packed.num_lockstep_rows,
        "stacked_xla": packed.num_lockstep_rows,
    }[strategy]
    return 1.0 - packed.num_rows / computed if computed else 0.0


class PartialSums(NamedTuple):
    """What a cohort adds up to, chunk by chunk.

    Attributes:
      partial_sums: Summed ``Contribution`` of each chunk, in the order of the chunks;
        of many chunks, the first ones are added up already.
      client_states: New client states by client id.
    """

    partial_sums: list[Contribution]
    client_states: Mapping[str, Any]


class Engine:
    """The compiled parts of one round.

    Attributes:
      work: What clients compute.
      broadcast: ``broadcast(state)`` -> message.
      total: ``total(message, partial_sums)`` -> ``Contribution``, added in their order.
      server_update: The round's own, of a total.
      update: ``update(state, partial_sums, seed)`` -> new state, sums of metrics:
        the two before it in one call, which a round of a small model is glad of.
    """

    def __init__(self, round_: Round) -> None:
        self.work = round_.client_work
        self._mechanisms = round_.mechanisms
        # Eagerly: it mostly names what is there; a compiled call waits for a thread.
        self.broadcast = round_.broadcast
        self.total = FlatFunctions(partial(_total, self.work))
        self.server_update = FlatFunctions(round_.server_update)
        self.update = FlatFunctions(partial(_updated, round_))
        self._added = FlatFunctions(_added)
        self._programs: dict[Strategy, ChunkProgram] = {}
        self._pools: dict[tuple[int, Precision], ThreadPoolExecutor] = {}

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
    ) -> PartialSums:
        """The sums over the cohort's chunks, computed side by side."""
        refuse_rounded_sums(execution.precision, self._mechanisms)
        program = self.program(execution.strategy)
        clients = {client.client_id: client for client in cohort}

        def run_chunk(part: PackedChunk) -> Any:
            return program(message, with_states(part, clients), even=part.even)

        with computing_in(execution.precision):
            results = self._in_order(run_chunk, packed.chunks, execution)
        client_states: dict[str, Any] = {}
        for part, (_, states) in zip(packed.chunks, results, strict=True):
            client_states |= unstacked(states, part.clients)
        partial_sums = self._few([partial_sum for partial_sum, _ in results])
        return PartialSums(partial_sums, client_states)

    def _few(self, partial_sums: list[Contribution]) -> list[Contribution]:
        while len(partial_sums) > _MOST_SUMS:
            first, rest = partial_sums[:_MOST_SUMS], partial_sums[_MOST_SUMS:]
            partial_sums = [self._added(first), *rest]
        return partial_sums

    def _in_order(
        self,
        function: Callable[[PackedChunk], Any],
        parts: Sequence[PackedChunk],
        execution: Execution,
    ) -> list[Any]:
        if execution.num_workers == 1 or len(parts) == 1:
            return [function(part) for part in parts]
        # A thread keeps the options that its first call saw, so precisions share none.
        key = (execution.num_workers, execution.precision)
        if key not in self._pools:
            self._pools[key] = ThreadPoolExecutor(execution.num_workers)
        return list(self._pools[key].map(function, parts))


def _updated(
    round_: Round, state: ServerState, partial_sums: list[Contribution], seed: Any
) -> tuple[ServerState, Any]:
    """The server's next state, and the sums of what clients reported."""
    message = round_.broadcast(state)
    total = _total(round_.client_work, message, partial_sums)
    return round_.server_update(state, total, seed), total.metrics


def _total(
    work: ClientWork, message: Broadcast, partial_sums: list[Contribution]
) -> Contribution:
    return _added([empty_total(work, message), *partial_sums])


def _added(partial_sums: list[Contribution]) -> Contribution:
    """All of them, one after another."""
    total, *others = partial_sums
    for partial_sum in others:
        total = nests.add(total, partial_sum)
    return total
