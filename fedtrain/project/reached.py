"""How far a run came: what it leaves behind even where something stopped it."""

from dataclasses import dataclass, replace
from typing import Any

from fedtrain.core.errors import BudgetExhaustedError, StoppedError
from fedtrain.models.model import ModelWeights
from fedtrain.project.build import Project
from fedtrain.project.config import ProjectConfig
from fedtrain.project.run_folder import BUDGET_EXHAUSTED, STOPPED, RunFolder
from fedtrain.rounds.early_stop import Best, EarlyStop, watched
from fedtrain.rounds.report import RoundReport
from fedtrain.rounds.round import ServerState

FINISHED = "finished"


@dataclass
class Reached:
    """The newest state of a run; a callback for ``train(on_round=...)``.

    Attributes:
      state: The server's, after ``rounds_done`` rounds.
      rounds_done: Rounds of the run so far.
      stop: What is watched.
      best: The best of those rounds; None where no score is watched.
      stopped: Why there are no more; None where the run came to its own end.
    """

    state: ServerState
    rounds_done: int = 0
    stop: EarlyStop | None = None
    best: Best | None = None
    stopped: BudgetExhaustedError | StoppedError | None = None

    def __call__(self, report: RoundReport, state: ServerState) -> None:
        """Keeps ``state``."""
        self.state, self.rounds_done = state, report.round_number + 1
        self.best = watched(
            self.stop,
            self.best,
            metrics=report.metrics,
            rounds_done=self.rounds_done,
            weights=state.weights,
        )

    @property
    def status(self) -> str:
        """How the run ended, in a word or two."""
        return FINISHED if self.stopped is None else status_after(self.stopped)

    def weights(self, config: ProjectConfig) -> ModelWeights:
        """Those that the run leaves, as ``[stop] keep`` says."""
        keeps_best = config.stop is not None and config.stop.keep == "best"
        return self.best.weights if self.best and keeps_best else self.state.weights

    def part_of(self, project: Project) -> Project:
        """``project`` with the rounds that were run: what its results are results of.

        Raises:
          BudgetExhaustedError, StoppedError: If there was not even a first round.
        """
        if self.stopped is not None and self.rounds_done == 0:
            raise self.stopped
        return replace(project, config=_cut(project.config, self.rounds_done))

    def raise_if_stopped(self, folder: RunFolder) -> None:
        """Raises what stopped the run, and says what there is all the same."""
        if self.stopped is not None:
            raise type(self.stopped)(
                f"{self.stopped} The weights after {self.rounds_done} rounds, their "
                f"privacy report and summary are in {folder.path}."
            ) from self.stopped


def status_after(error: BudgetExhaustedError | StoppedError) -> str:
    """The status of a run that ``error`` has ended."""
    return STOPPED if isinstance(error, StoppedError) else BUDGET_EXHAUSTED


def _cut(config: ProjectConfig, rounds_done: int) -> ProjectConfig:
    trained = min(rounds_done, config.rounds.num_rounds)
    rounds: Any = {"num_rounds": trained}
    done: Any = {"rounds": config.rounds.model_copy(update=rounds)}
    if config.compression is not None:
        tuning: Any = {"fine_tuning_rounds": rounds_done - trained}
        done["compression"] = config.compression.model_copy(update=tuning)
    return config.model_copy(update=done)
