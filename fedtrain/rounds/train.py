"""The one loop: sample a cohort, charge, run the round, evaluate, save, tell."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.core import seeds, validate
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.privacy.run_privacy import Later
from fedtrain.rounds.ahead import DrawnCohort, LooksAhead, ReadingAhead, draw
from fedtrain.rounds.checkpoint import Checkpoint, packed_like
from fedtrain.rounds.checks import (
    Evaluate,
    check_privacy,
    evaluation,
    refuse_divergence,
)
from fedtrain.rounds.early_stop import Best, EarlyStop, is_over, watched
from fedtrain.rounds.keepers import Charges, Checkpoints
from fedtrain.rounds.report import OnRound, RoundReport
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import AdaptiveRuntime, CohortClient, Runtime


class TrainResult(NamedTuple):
    """What ``train`` returns.

    Attributes:
      state: The server's state after the last round.
      reports: One report for each round of this sitting (not of those before a resume).
    """

    state: ServerState
    reports: tuple[RoundReport, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What ``train`` runs: the parts that stay the same from round to round.

    Attributes:
      round_: What one round is.
      dataset: The population.
      sampler: Who takes part in a round.
      runtime: Who carries a round out.
      num_rounds: Rounds in all, those before a resume included.
      seed: The run's seed; the same seed gives the same weights.
      privacy: Charges the ledger; required where the round has a privacy mechanism.
      evaluate: Scores a state, for example on public test data.
      evaluate_every: Rounds between two evaluations; the last round has one too.
      stop: Ends the run early, and has checkpoints keep the best weights; None does
        neither.
      checkpoints: Where to save, and to resume from.
      on_round: Called with each round's report and state, before the round is saved;
        after a crash it may hear of a round again.
    """

    round_: Round
    dataset: FederatedDataset
    sampler: CohortSampler
    runtime: Runtime
    num_rounds: int
    seed: seeds.HostSeed
    privacy: Charges | None = None
    evaluate: Evaluate | None = None
    evaluate_every: int = 1
    stop: EarlyStop | None = None
    checkpoints: Checkpoints | None = None
    on_round: Sequence[OnRound] = field(default=())

    def __post_init__(self) -> None:
        """The parts fit together."""
        validate.positive_integer(
            num_rounds=self.num_rounds, evaluate_every=self.evaluate_every
        )
        check_privacy(self)


class _Progress(NamedTuple):
    round_number: int
    state: ServerState
    client_states: Mapping[str, Any]
    best: Best | None = None


def train(run: TrainingRun, state: ServerState) -> TrainResult:
    """Runs all rounds that are still to do, from ``state`` or the newest checkpoint.

    With ``run.stop`` it ends before them where scores no longer improve; the newest
    checkpoint then holds the best weights too. Where the runtime can pack ahead, the
    next cohort is read and packed while this one trains, unless the ledger says that
    it cannot be afforded.

    Args:
      run: What to run.
      state: ``round_.init(weights)``; the newest checkpoint, if any, replaces it.

    Raises:
      BudgetExhaustedError: Before the data of the round that would pass the budget is
        read (another run on the same ledger can spend while they are read ahead; then
        before they are used). Earlier rounds are saved.
      DivergedError: When the weights are no longer finite; the round is not saved.
      CheckpointError, LedgerError: When what was saved cannot be trusted.
    """
    progress = _restored(run, state)
    del state  # while rounds run, the start's weights are not kept
    reports = []
    with ReadingAhead(run) as ahead:
        while not _is_done(run, progress):
            progress, report = _one_round(run, ahead, progress)
            reports.append(report)
            # Told first, saved second: a crash between repeats a report, never loses
            # one.
            for callback in run.on_round:
                callback(report, progress.state)
            _save(run, progress)
    return TrainResult(progress.state, tuple(reports))


def _is_done(run: TrainingRun, progress: _Progress) -> bool:
    return progress.round_number >= run.num_rounds or is_over(run.stop, progress.best)


def _one_round(
    run: TrainingRun, ahead: ReadingAhead, before: _Progress
) -> tuple[_Progress, RoundReport]:
    started = time.perf_counter()
    number = before.round_number
    drawn = ahead.drawn(number)
    spent = _charge(run, before, drawn)
    cohort = _cohort(run, before, ahead.rows(drawn))
    ahead.start(number + 1)
    result = run.runtime.run_round(run.round_, before.state, cohort, drawn.seed)
    refuse_divergence(number, result.state)
    client_states = _merged(before.client_states, result.client_states)
    metrics = {
        **result.metrics,
        **run.round_.reported(result.state),
        **evaluation(run, number + 1, result.state),
    }
    best = watched(
        run.stop,
        before.best,
        metrics=metrics,
        rounds_done=number + 1,
        weights=result.state.weights,
    )
    after = _Progress(number + 1, result.state, client_states, best)
    report = RoundReport(
        round_number=number,
        metrics=metrics,
        cohort_size=len(drawn.client_ids),
        lost_clients=result.lost_clients,
        skipped_clients=len(drawn.client_ids) - len(cohort),
        seconds=time.perf_counter() - started,
        spent_epsilon=_spent_so_far(run, spent),
    )
    return after, report


def _spent_so_far(run: TrainingRun, charged: float | None) -> float | None:
    """Asking again, and scores on private rows, are charged after the round."""
    found = None if run.privacy is None else run.privacy.spent_so_far()
    return charged if found is None else found


def _charge(run: TrainingRun, before: _Progress, drawn: DrawnCohort) -> float | None:
    if run.privacy is None:
        return None
    number, client_ids = before.round_number, drawn.client_ids
    if isinstance(run.privacy, LooksAhead):
        later = Later(run.num_rounds, lambda later: draw(run, later).client_ids)
        run.privacy.reserve(number, later)
    digest = hashlib.sha256(drawn.seed.tobytes() + "\0".join(client_ids).encode())
    for leaf in tf.nest.flatten(before.state):
        digest.update(np.ascontiguousarray(leaf).data)
    return run.privacy.before_round(number, client_ids, digest.hexdigest())


def _cohort(
    run: TrainingRun, before: _Progress, rows: Sequence[CohortClient]
) -> list[CohortClient]:
    """The clients with what they kept from earlier rounds."""
    fresh = run.round_.client_work.init_state(before.state.weights)
    kept = before.client_states
    return [client._replace(state=kept.get(client.client_id, fresh)) for client in rows]


def _merged(before: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The states of all clients seen so far; none where client work keeps nothing."""
    stateful = {key: state for key, state in changed.items() if tf.nest.flatten(state)}
    return {**before, **stateful} if stateful else before


def _restored(run: TrainingRun, state: ServerState) -> _Progress:
    checkpoint = run.checkpoints.latest(state) if run.checkpoints else None
    _begin(run, checkpoint)
    if checkpoint is None:
        return _Progress(0, state, {})
    if run.privacy is not None and checkpoint.ledger_head is not None:
        run.privacy.expect(checkpoint.ledger_head)
    like = run.round_.client_work.init_state(checkpoint.state.weights)
    client_states = {
        client_id: packed_like(leaves, like)
        for client_id, leaves in checkpoint.client_states.items()
    }
    return _Progress(
        checkpoint.round_number, checkpoint.state, client_states, checkpoint.best
    )


def _begin(run: TrainingRun, checkpoint: Checkpoint | None) -> None:
    """Has the rounds to come run as those before them were."""
    if isinstance(run.runtime, AdaptiveRuntime):
        done = checkpoint.round_number if checkpoint else 0
        run.runtime.begin(
            run.round_,
            num_rounds=run.num_rounds - done,
            recorded=checkpoint.execution if checkpoint else None,
        )


def _save(run: TrainingRun, progress: _Progress) -> None:
    store = run.checkpoints
    if store is None:
        return
    if not (
        _is_done(run, progress) or store.is_due(progress.round_number, run.num_rounds)
    ):
        return
    head = None if run.privacy is None else run.privacy.head()
    execution = None
    if isinstance(run.runtime, AdaptiveRuntime):
        execution = run.runtime.execution(run.round_)
    store.save(
        Checkpoint(
            progress.round_number,
            progress.state,
            progress.client_states,
            head,
            execution,
            progress.best,
        )
    )
