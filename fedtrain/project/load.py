"""A finished (or interrupted) run, read back from its folder."""

from pathlib import Path
from typing import Any

from fedtrain.core.errors import CheckpointError
from fedtrain.data.schema import load_schema
from fedtrain.project.build import Project, build
from fedtrain.project.config import ProjectConfig
from fedtrain.project.deployed import deployed
from fedtrain.project.keras_weights import keras_model_with
from fedtrain.project.read import read_config
from fedtrain.project.run_folder import (
    BUDGET_EXHAUSTED,
    STOPPED,
    RunFolder,
    existing_run,
)
from fedtrain.project.weights_file import Arrays, load_arrays
from fedtrain.tracking.jsonl import RoundRecord, read_metrics


class LoadedRun:
    """What a run left behind.

    Attributes:
      folder: Its folder.
      config: Its configuration, with every key.
    """

    def __init__(self, folder: RunFolder, project: Project | None = None) -> None:
        """Reads the configuration; ``project`` where its objects are still held."""
        self.folder = folder
        self._project = project
        self.config: ProjectConfig = read_config(folder.config)

    @property
    def status(self) -> str:
        """``"finished"``, ``"budget exhausted"``, ``"interrupted"`` or the like."""
        return str(self.folder.read_json(self.folder.info).get("status", "unknown"))

    @property
    def weights(self) -> Arrays:
        """The final weights: an array for each by name, such as trainable/0/kernel."""
        return self._arrays(self.folder.weights)

    @property
    def compressed_weights(self) -> Arrays | None:
        """The final weights under the constraint; None without ``[compression]``."""
        if self.config.compression is None:
            return None
        return self._arrays(self.folder.compressed_weights)

    @property
    def history(self) -> list[RoundRecord]:
        """One record for each round."""
        return read_metrics(self.folder.metrics)

    @property
    def summary(self) -> dict[str, Any]:
        """The closing summary; empty if the run has not finished."""
        return self.folder.read_json(self.folder.summary)

    @property
    def privacy_report(self) -> dict[str, Any] | None:
        """The guarantee; None for a run without privacy."""
        return self.folder.read_json(self.folder.privacy_report) or None

    @property
    def privacy_statement(self) -> str:
        """The guarantee in words."""
        return str(self.summary.get("privacy_statement", ""))

    @property
    def is_served(self) -> bool:
        """Whether its training rows are with partners, and were never here."""
        return bool(self.folder.read_json(self.folder.info).get("served"))

    def project(self) -> Project:
        """The objects of the run; reads its data again where they are not held."""
        if self._project is None:
            self._project = self._built()
        return self._project

    def _built(self) -> Project:
        folder = self.folder.path
        if not self.is_served:
            return build(self.config, folder=folder, allow_missing=True)
        return deployed(
            self.config, folder=folder, schema=load_schema(self.folder.schema)
        )

    def keras_model(self) -> Any:
        """A Keras model with the final weights."""
        return keras_model_with(self.config, self.folder.path, self.weights)

    def _arrays(self, path: Path) -> Arrays:
        if path.is_file():
            return load_arrays(path)
        if self.status == BUDGET_EXHAUSTED:
            raise CheckpointError(
                f"{self.folder.path} has no {path.name}: its privacy budget did not "
                "allow a single round. Start a new run with more noise or a larger "
                "budget."
            )
        if self.status == STOPPED:
            raise CheckpointError(
                f"{self.folder.path} has no {path.name}: the operator ended the run "
                "before its first round was done. Begin another federation."
            )
        raise CheckpointError(
            f"{self.folder.path} has no {path.name}: the run is {self.status}. "
            f"Finish it with: fedtrain simulate --resume {self.folder.path}"
        )


def load_run(run: str | Path) -> LoadedRun:
    """The run in the folder ``run``; ``"latest"`` is the newest one in ``runs``."""
    return LoadedRun(existing_run(run))
