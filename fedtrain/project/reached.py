"""How far a run came: what it leaves behind even where its budget stopped it."""

from dataclasses import dataclass, replace
from typing import Any

from fedtrain.core.errors import BudgetExhaustedError
from fedtrain.project.build import Project
from fedtrain.project.config import ProjectConfig
from fedtrain.project.run_folder import RunFolder
from fedtrain.rounds.report import RoundReport
from fedtrain.rounds.round import ServerState


@dataclass
class Reached:
    """The newest state of a run; a callback for ``train(on_round=...)``.

    Attributes:
      state: The server's, after ``rounds_done`` rounds.
      rounds_done: Rounds of the run so far.
      stopped: Why there are no more; None where all were run.
    """

    state: ServerState
    rounds_done: int = 0
    stopped: BudgetExhaustedError | None = None

    def __call__(self, report: RoundReport, state: ServerState) -> None:
        """Keeps ``state``."""
        self.state, self.rounds_done = state, report.round_number + 1

    def part_of(self, project: Project) -> Project:
        """``project`` with the rounds that were run: what its results are results of.

        Raises:
          BudgetExhaustedError: If not even the first round was allowed.
        """
        if self.stopped is not None and self.rounds_done == 0:
            raise self.stopped
        return replace(project, config=_cut(project.config, self.rounds_done))

    def raise_if_stopped(self, folder: RunFolder) -> None:
        """Raises what stopped the run, and says what there is all the same."""
        if self.stopped is not None:
            raise BudgetExhaustedError(
                f"{self.stopped} The weights after {self.rounds_done} rounds, their "
                f"privacy report and summary are in {folder.path}."
            ) from self.stopped


def _cut(config: ProjectConfig, rounds_done: int) -> ProjectConfig:
    trained = min(rounds_done, config.rounds.num_rounds)
    rounds: Any = {"num_rounds": trained}
    done: Any = {"rounds": config.rounds.model_copy(update=rounds)}
    if config.compression is not None:
        tuning: Any = {"fine_tuning_rounds": rounds_done - trained}
        done["compression"] = config.compression.model_copy(update=tuning)
    return config.model_copy(update=done)
