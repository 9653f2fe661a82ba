"""One compiled program over clients and batches: the fast runtime.

A cohort is cut into chunks of clients. Each chunk is one call of one compiled program
(see ``strategies``); Python threads run chunks side by side. Where the cohort is cut
does not depend on the number of threads, and partial sums are added in the order of the
chunks, so the result is the same to the bit for any number of workers (at one intra-op
thread setting).

Told how many rounds there will be, the runtime tries the strategies on the first
cohort and keeps the fastest (see ``tuning``).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, Contribution
from fedtrain.core import seeds
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    RoundResult,
    mean_metrics,
    refuse_order_statistics,
    server_seed,
)
from fedtrain.runtimes.engine import Engine, PartialSums
from fedtrain.runtimes.execution import (
    Execution,
    execution_from,
    intra_op_threads,
    num_cores,
)
from fedtrain.runtimes.packing import PackedCohort
from fedtrain.runtimes.precision import (
    Precision,
    check_precision,
    refuse_rounded_sums,
)
from fedtrain.runtimes.strategies import Strategy
from fedtrain.runtimes.tuning import fastest

_log = logging.getLogger(__name__)


class CohortSum(NamedTuple):
    """What a cohort adds up to.

    Attributes:
      total: The summed ``Contribution``.
      client_states: New client states by client id.
    """

    total: Contribution
    client_states: Mapping[str, Any]


class _Prepared(NamedTuple):
    """A cohort that was packed ahead, and what it was packed from and for."""

    packed: PackedCohort
    cohort: Cohort
    execution: Execution

    def serves(self, cohort: Cohort, execution: Execution) -> bool:
        """Whether packing now would give the same: the same rows, cut the same way."""
        pairs = zip(self.cohort, cohort, strict=True)
        same_rows = all(before.examples is now.examples for before, now in pairs)
        own, asked = (
            (each.strategy, each.chunk_size) for each in (self.execution, execution)
        )
        return same_rows and own == asked


class CompiledRuntime:
    """Runs the clients of a round inside one compiled program per chunk.

    Attributes:
      tell: Takes one line that says what was chosen and why.

    Args:
      strategy: How a chunk is computed; by default the fastest of all, found on the
        first cohort of a training run that is long enough to be worth it.
      num_workers: Python threads; by default one for each core.
      chunk_size: Clients in a chunk; by default a sixteenth of the cohort, rounded up,
        or what trials find. Sums are rounded chunk by chunk, so another size changes
        the last bits.
      precision: Of matrix products and convolutions inside clients' steps.
      tell: By default the log.
    """

    def __init__(
        self,
        *,
        strategy: Strategy | None = None,
        num_workers: int | None = None,
        chunk_size: int | None = None,
        precision: Precision = "float32",
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        check_precision(precision)
        self._default = Execution(
            strategy=strategy or "graph",
            chunk_size=chunk_size,
            num_workers=num_cores() if num_workers is None else num_workers,
            precision=precision,
        )
        self._tries = strategy is None
        self.tell = tell
        self._engines: dict[Any, Engine] = {}
        self._executions: dict[Any, Execution] = {}
        self._num_rounds: dict[Any, int] = {}
        self._prepared: dict[Any, _Prepared] = {}

    def begin(
        self,
        round_: Round,
        *,
        num_rounds: int,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        """Tells how many rounds are to come, and how those before them were run.

        Args:
          round_: What a round will be.
          num_rounds: Trials are made only if they can pay for themselves.
          recorded: What ``execution`` gave for the rounds before a resume: repeated to
            the bit, without trials.

        Raises:
          ConfigError: If what was recorded cannot be repeated in this process.
          PrivacyError: If the precision is too low for the round's privacy.
        """
        key = round_key(round_)
        if recorded:
            self._num_rounds.pop(key, None)
            workers = self._default.num_workers
            self._executions[key] = replace(
                execution_from(recorded), num_workers=workers
            )
        elif self._tries and key not in self._executions:
            self._num_rounds[key] = num_rounds
        # Now, before anything is charged.
        execution = self._executions.get(key, self._default)
        refuse_rounded_sums(execution.precision, round_.mechanisms)

    def execution(self, round_: Round) -> Mapping[str, Any]:
        """How rounds like ``round_`` are run, for the run's records.

        Empty while trials are due: no client has come yet, so nothing has to repeat.
        """
        if round_key(round_) in self._num_rounds:
            return {}
        execution = self._executions.get(round_key(round_), self._default)
        return replace(execution, intra_op_threads=intra_op_threads()).as_dict()

    def prepare(self, round_: Round, cohort: Cohort, seed: seeds.Seed) -> None:
        """Packs a coming round's cohort ahead of time: a hint, results are equal.

        Args:
          round_: The round that will be run.
          cohort: Its clients; their ``state`` is not looked at.
          seed: The seed that the round will be run with.
        """
        if round_key(round_) in self._num_rounds:
            return  # trials come first: how to pack is not known yet
        execution = self._executions.get(round_key(round_), self._default)
        packed = self._engine(round_).pack(cohort, seed, execution)
        prepared = _Prepared(packed, cohort, execution)
        self._prepared = {_prepared_key(round_, cohort, seed): prepared}

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``; the same seed gives the same result."""
        refuse_order_statistics(round_)
        message = self.broadcast(round_, state)
        sums = self._partial_sums(round_, message, cohort, seed)
        new_state, metrics = self._engine(round_).update(
            state, sums.partial_sums, tf.constant(server_seed(seed))
        )
        return RoundResult(new_state, mean_metrics(metrics), sums.client_states)

    def broadcast(self, round_: Round, state: ServerState) -> Broadcast:
        """What the clients of the round receive."""
        return self._engine(round_).broadcast(state)

    def cohort_sum(
        self, round_: Round, message: Broadcast, cohort: Cohort, seed: seeds.Seed
    ) -> CohortSum:
        """The clients' half of a round: the sum of contributions and the new states."""
        sums = self._partial_sums(round_, message, cohort, seed)
        total = self._engine(round_).total(message, sums.partial_sums)
        return CohortSum(total, sums.client_states)

    def _partial_sums(
        self, round_: Round, message: Broadcast, cohort: Cohort, seed: seeds.Seed
    ) -> PartialSums:
        engine = self._engine(round_)
        execution = self._execution_for(round_, message, cohort, seed)
        ready = self._prepared.pop(_prepared_key(round_, cohort, seed), None)
        if ready is not None and ready.serves(cohort, execution):
            return engine.run(message, ready.packed, cohort, execution)
        packed = engine.pack(cohort, seed, execution)
        return engine.run(message, packed, cohort, execution)

    def server_update(
        self, round_: Round, state: ServerState, total: Contribution, seed: seeds.Seed
    ) -> ServerState:
        """The server's half of the round that has ``seed``."""
        own_seed = tf.constant(server_seed(seed))
        return self._engine(round_).server_update(state, total, own_seed)

    def _execution_for(
        self, round_: Round, message: Broadcast, cohort: Cohort, seed: seeds.Seed
    ) -> Execution:
        """What was chosen for this round; trials are made now if they are due."""
        key = round_key(round_)
        if cohort and key in self._num_rounds:
            choice = fastest(
                self._engine(round_),
                message,
                cohort,
                seed,
                default=self._default,
                num_rounds=self._num_rounds[key],
            )
            self._executions[key] = choice.execution
            # Only now: what is packed ahead waits for the choice.
            self._num_rounds.pop(key, None)
            if choice.line:
                self.tell(choice.line)
        return self._executions.get(key, self._default)

    def _engine(self, round_: Round) -> Engine:
        key = round_key(round_)
        if key not in self._engines:
            self._engines[key] = Engine(round_)
        return self._engines[key]


def round_key(round_: Round) -> Any:
    """What rounds that are computed alike have in common, also as another object."""
    return round_.client_work.step, round_.client_work.finish, round_.server_update


def _prepared_key(round_: Round, cohort: Cohort, seed: seeds.Seed) -> Any:
    client_ids = tuple(client.client_id for client in cohort)
    return round_key(round_), client_ids, tuple(int(word) for word in seed)
