"""A run goes on only with the rows that it started with."""

import shlex

from fedtrain.core.errors import ConfigError
from fedtrain.data.fingerprint import data_sha256
from fedtrain.project.build import Project
from fedtrain.project.run_folder import RunFolder


def check_same_data(project: Project, folder: RunFolder) -> None:
    """Refuses to go on with a run whose training rows were changed.

    A round that is done again draws the same noise. Released for the same rows twice,
    it is one release; for other rows, the difference would show them without noise.

    Raises:
      ConfigError: Where the fingerprint in ``run.json`` is of other rows.
    """
    expected = folder.read_json(folder.info).get("data_sha256")
    if expected in (None, data_sha256(project.split.train)):
        return
    config, seed = shlex.quote(str(folder.config)), project.config.seed + 1
    raise ConfigError(
        f"The training data of {folder.path} have changed since it started: rows, "
        "clients or their order differ from its data_sha256. A resumed round may use "
        "its noise again only for the same data. Put the data back, or start a new "
        "run, with another seed and so other noise: "
        f"fedtrain simulate {config} -s seed={seed}"
    )
