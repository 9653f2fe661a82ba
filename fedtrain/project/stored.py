"""What a run folder keeps of the project, so that it can be resumed from there."""

from pathlib import Path
from typing import Any

from fedtrain.models.model import Model
from fedtrain.project.build import Project
from fedtrain.project.build_data import IN_MEMORY
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
    is_saved = Path(config.model.path or "").suffix == ".keras"
    if project.given_model is not None or is_saved:
        model = {"path": "model.keras"}
    rows = config.export.public_rows
    export = {"public_rows": _absolute(rows, project.folder)} if rows else {}
    # The database's URL may hold a password; a run that is served again does without.
    service = config.service and config.service.model_copy(update={"database": None})
    runs_dir = str((project.folder / config.tracking.runs_dir).resolve())
    stored = config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update=model),
            "export": config.export.model_copy(update=export),
            "service": service,
            "tracking": config.tracking.model_copy(update={"runs_dir": runs_dir}),
        }
    )
    return resolved_toml(stored)


def save_given_model(folder: RunFolder, given_model: Any) -> None:
    """Keeps a Keras model that was given as an object, its first weights included.

    A subclassed model that Keras cannot write is left out: its run goes on only in a
    program that has the model.
    """
    if given_model is None or isinstance(given_model, Model):
        return
    try:
        given_model.save(folder.given_model)
        compiled = given_model.get_compile_config() or {}
        folder.write_json(folder.given_model.with_suffix(".compile.json"), compiled)
    except (NotImplementedError, TypeError, ValueError):
        folder.given_model.unlink(missing_ok=True)


def _absolute(path: str, folder: Path) -> str:
    unchanged = "://" in path or path == IN_MEMORY
    return path if unchanged else str((folder / path).resolve())
