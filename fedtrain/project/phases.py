"""The rounds of a run: training, then fine-tuning under the constraint."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedtrain.compression.constraint import one_shot
from fedtrain.models.model import ModelWeights
from fedtrain.project.build import Project
from fedtrain.rounds.checkpoint import Checkpoint
from fedtrain.rounds.keepers import Checkpoints
from fedtrain.rounds.round import ServerState
from fedtrain.rounds.train import TrainingRun, TrainResult, train


def train_phases(
    project: Project,
    training: TrainingRun,
    start: Callable[[], ServerState],
    *,
    on_trained: Callable[[ServerState], None] = lambda state: None,
) -> TrainResult:
    """Runs what is still to do of both kinds of rounds, one numbering for them all.

    Args:
      project: What is run; it says how many rounds there are of each kind.
      training: The first kind; its checkpoints, ledger and callbacks serve both.
      start: Gives the state before the first round, which is not kept here; the newest
        checkpoint, if any, replaces it.
      on_trained: Hears the state between the two, before the first round of the
        second; not where a run is resumed later than that.
    """
    first = train(training, start())
    if int(first.state.round_number) == training.num_rounds:
        on_trained(first.state)
    num_rounds = project.config.all_rounds
    if project.tuning_round is None or num_rounds == training.num_rounds:
        return first
    tuning = replace(
        training,
        round_=project.tuning_round,
        num_rounds=num_rounds,
        checkpoints=_from_round(training.num_rounds, training.checkpoints),
    )
    second = train(tuning, first.state)
    return TrainResult(second.state, (*first.reports, *second.reports))


def shown_weights(project: Project, state: ServerState) -> ModelWeights:
    """What is scored after a round: under the constraint, once rounds are."""
    done = int(state.round_number)
    if project.constraint is None or done <= project.config.rounds.num_rounds:
        return state.weights
    return one_shot(state.weights, project.constraint, round_number=done - 1)


def _from_round(
    first_round: int, checkpoints: Checkpoints | None
) -> Checkpoints | None:
    return None if checkpoints is None else _OfRounds(first_round, checkpoints)


@dataclass(frozen=True)
class _OfRounds:
    """Checkpoints that forget how the runtime ran the rounds before ``first_round``.

    What was fastest for those may not even be possible for these.
    """

    first_round: int
    checkpoints: Checkpoints

    def latest(self, like: ServerState) -> Checkpoint | None:
        found = self.checkpoints.latest(like)
        if found is not None and found.round_number <= self.first_round:
            return found._replace(execution=None)
        return found

    def is_due(self, round_number: int, num_rounds: int) -> bool:
        return self.checkpoints.is_due(round_number, num_rounds)

    def save(self, checkpoint: Checkpoint) -> object:
        return self.checkpoints.save(checkpoint)
