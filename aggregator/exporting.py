"""The end of a served run that is to be exported: checked first, done last."""

import shlex
from pathlib import Path

from rich.console import Console

from fedtrain.core.errors import ConfigError, RefusedExportError
from fedtrain.export.export_run import export_run
from fedtrain.export.targets import check_packages, checked_targets
from fedtrain.project.build import Project


def check_export(project: Project) -> None:
    """Refuses, before the first round, an export that could only fail after the last.

    Raises:
      ConfigError: If packages are missing, no rows are public, or a model without
        privacy was not said to be releasable.
    """
    settings = project.config.export
    check_packages(checked_targets(settings.to))
    has_test_rows = project.shows_test and project.split.test.num_examples > 0
    if settings.public_rows is None and not has_test_rows:
        raise ConfigError(
            "--export needs rows that are public to judge the exported model by: give "
            "export.public_rows, or data.test_path with data.test_sensitivity = "
            '"public".'
        )
    if project.plan is None and not settings.accept_no_privacy:
        raise ConfigError(
            "--export would release a model without any guarantee. If it may be, say "
            "so: export.accept_no_privacy = true."
        )


def exported(run: Path, *, console: Console) -> Path:
    """Exports the finished run in the folder ``run``; returns the release's folder.

    Raises:
      RefusedExportError: Whatever went wrong; says how to try again.
    """
    try:
        release = export_run(run, told=lambda text: console.print(text, style="dim"))
    except Exception as error:  # the run is finished, whatever a converter runs into
        again = f"fedtrain export {shlex.quote(str(run))}"
        raise RefusedExportError(
            f"The run is finished, but its export failed: {error} Once that is mended, "
            f"export it with: {again}"
        ) from error
    return release.folder
