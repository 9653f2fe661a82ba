"""The ways in: start a run, go on with one, or run what a program already holds."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fedtrain.project.build import build
from fedtrain.project.build_data import IN_MEMORY
from fedtrain.project.config import ProjectConfig
from fedtrain.project.diagnostics import check_diagnostics
from fedtrain.project.distributed import follow
from fedtrain.project.load import LoadedRun
from fedtrain.project.new_project import template
from fedtrain.project.problems import in_file
from fedtrain.project.read import checked_config, overridden, read_config
from fedtrain.project.run import run, start_run
from fedtrain.project.run_folder import existing_run
from fedtrain.project.same_data import check_same_data
from fedtrain.project.same_project import check_same_project
from fedtrain.runtimes.replicas import Replicas

EMBEDDED = "the embedded example"


def simulate(
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    console: Console | None = None,
    diagnostics: bool = False,
    replicas: Replicas | None = None,
) -> dict[str, Any]:
    """Trains as the project file at ``file`` says; the embedded example without one.

    Args:
      file: A ``federation.toml``.
      overrides: Such as ``"rounds.num_rounds=5"``.
      console: Where progress is shown; nowhere by default.
      diagnostics: Whether to write exact figures about private rows, to the run's
        folder ``diagnostics-NOT-PRIVATE``.
      replicas: Of all workers that train together, each calling this function.

    Returns:
      The summary: scores, comparison, privacy statement and the run's folder. At
      workers other than the chief: ``worker``, ``rounds`` and ``status``.
    """
    console = console or Console(quiet=True)
    config, folder = config_of(file, overrides)
    with in_file(file):
        project = build(config, folder=folder)
    if diagnostics:
        check_diagnostics(project)
    if replicas is not None and not replicas.is_chief:
        return follow(project, replicas, console=console)
    return run(
        project,
        start_run(project),
        console=console,
        diagnostics=diagnostics,
        replicas=replicas,
    )


def config_of(
    file: str | Path | None, overrides: Sequence[str] = ()
) -> tuple[ProjectConfig, Path]:
    """The configuration of a project file (or the embedded example), and its folder."""
    if file is not None:
        return read_config(file, overrides), Path(file).parent
    tables = overridden(tomllib.loads(template("digits.toml")), overrides)
    return checked_config(tables, file=EMBEDDED), Path()


def resume(
    run_: str | Path,
    *,
    console: Console | None = None,
    diagnostics: bool = False,
    replicas: Replicas | None = None,
) -> dict[str, Any]:
    """Goes on with a run that was interrupted; returns its summary.

    Args:
      run_: Its folder, or ``"latest"`` in ``runs``.
      console: Where progress is shown; nowhere by default.
      diagnostics: As in ``simulate``; also for a run that has finished.
      replicas: As in ``simulate``. Workers other than the chief that do not have the
        run's folder call ``simulate`` instead: they start where the chief is.

    Raises:
      ConfigError: If the settings, the model or the training rows are not those that
        the run started with.
    """
    console = console or Console(quiet=True)
    folder = existing_run(run_)
    check_same_project(folder)
    config = read_config(folder.config)
    project = build(config, folder=folder.path, allow_missing=True)
    check_same_data(project, folder)
    if diagnostics:
        check_diagnostics(project)
    if replicas is not None and not replicas.is_chief:
        return follow(project, replicas, console=console)
    return run(
        project, folder, console=console, diagnostics=diagnostics, replicas=replicas
    )


def federate(
    model: Any, data: Any, *, console: Console | None = None, **sections: Any
) -> LoadedRun:
    """Trains a Keras model on a table whose rows belong to different clients.

    The same run as ``simulate``, with objects in place of files.

    Args:
      model: A built Keras model (its weights are where training starts), or a
        ``fedtrain.Model``.
      data: A pandas DataFrame, or a ``DataSplit``.
      console: Where progress is shown; nowhere by default.
      **sections: The sections and keys of a project file: ``seed=1``,
        ``rounds={"num_rounds": 20}``, ``client={...}``, ``privacy={...}``;
        ``data_keys={"label": "outcome", "client": "hospital"}`` is ``[data]``.

    Returns:
      The finished run: weights, ``keras_model()``, history and privacy report.
    """
    keys: Mapping[str, Any] = sections.pop("data_keys", {})
    tables = {
        "name": "run",
        "data": {"path": IN_MEMORY, **keys},
        "model": {"path": "model.keras"},
        **sections,
    }
    config = checked_config(tables, file="federate(...)")
    project = build(config, folder=Path(), model=model, data=data)
    folder = start_run(project)
    run(project, folder, console=console or Console(quiet=True))
    return LoadedRun(folder, project)
