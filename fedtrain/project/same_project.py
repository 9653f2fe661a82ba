"""A run goes on only with the settings and the model that it started with."""

import shlex

from fedtrain.core.errors import ConfigError
from fedtrain.project.run_folder import RunFolder


def check_same_project(folder: RunFolder) -> None:
    """Refuses to go on with a run whose settings or model were edited.

    A round that is done again draws the same noise; of another mechanism's or model's
    sum, the difference would show what the noise hides.

    Raises:
      ConfigError: Where the fingerprint in ``run.json`` is of other files.
    """
    expected = folder.read_json(folder.info).get("project_sha256")
    if expected in (None, folder.project_sha256()):
        return
    raise ConfigError(
        f"The settings or the model in {folder.path} have changed since the run "
        "started: federation.toml, the model's file or schema.json differ from its "
        "project_sha256. A resumed round may use its noise again only for the same "
        "settings. Put the files back, or start a new run with the changed ones: "
        f"fedtrain simulate {shlex.quote(str(folder.config))}"
    )
