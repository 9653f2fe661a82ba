"""What a run folder keeps of the project, so that it can be resumed from there."""

from pathlib import Path
from typing import Any

from fedtrain.core.files import write_atomically
from fedtrain.models.model import Model
from fedtrain.project.build import Project
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.toml_text import resolved_toml

_PATHS = ("path", "test_path", "schema_path")


def stored_toml(project: Project) -> str:
    """The configuration with every key, and with paths that hold from anywhere."""
    config = project.config
    data = {
        key: _absolute(value, project.folder)
        for key in _PATHS
        if (value := getattr(config.data, key)) is not None
    }
    model = {"path": "model.py"} if config.model.path else {}
    if project.given_model is not None:
        model = {"path": "model.json"}
    runs_dir = str((project.folder / config.tracking.runs_dir).resolve())
    stored = config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update=model),
            "tracking": config.tracking.model_copy(update={"runs_dir": runs_dir}),
        }
    )
    return resolved_toml(stored)


def save_keras_config(folder: RunFolder, given_model: Any) -> None:
    """Keeps the architecture of a Keras model that was given as an object."""
    if given_model is not None and not isinstance(given_model, Model):
        write_atomically(folder.keras_config, given_model.to_json())


def _absolute(path: str, folder: Path) -> str:
    return path if "://" in path else str((folder / path).resolve())
