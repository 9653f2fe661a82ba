"""Scores of a finished run on rows that it may never have seen."""

from pathlib import Path
from typing import Any

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.schema import load_schema
from fedtrain.data.schema_check import missing_values
from fedtrain.models.model import Model
from fedtrain.project.build import Project
from fedtrain.project.build_data import read_rows, split_from
from fedtrain.project.build_model import model_of
from fedtrain.project.load import LoadedRun, load_run
from fedtrain.project.weights_file import weights_like
from fedtrain.rounds.evaluation import Evaluator


def evaluate_run(run: str | Path, data: Any = None) -> dict[str, Any]:
    """Scores of the final weights of ``run``.

    Args:
      run: Its folder, or ``"latest"``.
      data: A file or table with the columns of the training data; the run's own test
        rows by default.

    Raises:
      CheckpointError: If the run has not finished.
      DataError: If rows do not fit the schema of the training data.
      PrivacyError: If the test rows are private, and the run keeps a privacy promise.
    """
    loaded = load_run(run)
    arrays = loaded.weights
    if data is None:
        project = loaded.project()
        _refuse_private_test(project)
        model, rows = project.model, project.split.test
    else:
        given = _new_rows(loaded, data)
        model, rows = _model_for(loaded, given), given.examples
    if not rows.num_examples:
        raise ConfigError("The run has no test rows; give --data.")
    weights = weights_like(arrays, model.init(seeds.root(0)))
    return {
        "run": str(loaded.folder.path),
        "data": "the run's test rows" if data is None else str(data),
        "num_examples": rows.num_examples,
        "scores": Evaluator(model).evaluate(weights, rows),
    }


def _refuse_private_test(project: Project) -> None:
    if not project.shows_test:
        raise PrivacyError(
            f"The test rows of {project.config.name} are private, and its privacy "
            "guarantee does not cover scores on them. Give --data with rows whose "
            "scores you may see, or, if the test rows are public, give them as "
            'data.test_path with data.test_sensitivity = "public".'
        )


def _new_rows(loaded: LoadedRun, data: Any) -> FederatedDataset:
    path = loaded.folder.schema
    if not path.is_file():
        raise ConfigError(
            f"--data {data} cannot be read: {loaded.config.data.name or 'the data'} of "
            "this run has no schema; leave --data out to score its own test rows."
        )
    schema = load_schema(path)
    if schema.client is not None:
        schema = schema.model_copy(update={"client": None})
    with missing_values("The model has learned nothing about it: leave such rows out."):
        return read_rows(data, schema=schema, name=str(data))


def _model_for(loaded: LoadedRun, rows: FederatedDataset) -> Model:
    split = split_from(rows, rows, source="new rows")
    return model_of(loaded.config, split, folder=loaded.folder.path)
