"""The trained model of a run as a function, with all that an export must know of it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, DataError, PrivacyError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples
from fedtrain.data.schema import Schema, load_schema
from fedtrain.data.sets.split import DataSplit, Task
from fedtrain.data.tabular import schema_of
from fedtrain.export.payment import Payment
from fedtrain.export.raw_examples import encoded_in_graph, raw_signature
from fedtrain.export.synthetic import NUM_ROWS, shaped_like, synthetic
from fedtrain.models.model import Model, output_values
from fedtrain.models.unrolled import unrolled
from fedtrain.project.build_data import read_rows
from fedtrain.project.ledger_identity import file_identity
from fedtrain.project.load import LoadedRun
from fedtrain.project.weights_file import weights_like
from fedtrain.rounds.evaluation import Evaluator

ReleaseStatus = Literal["simulation", "no_privacy", "raw_calibration", "release"]
OUTPUTS, PROBABILITIES = "outputs", "probabilities"


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What is exported.

    Attributes:
      name: Of the project; the name it is served under.
      run: Where it was trained.
      model: As functions of its weights.
      weights: The final ones.
      compressed: Those that ``[compression]`` left; None without that section.
      evaluation: Public rows: every variant is scored on them.
      evaluation_source: What they are, for the record.
      groups: Names of groups (clients) and each row's, as codes; None without any.
      calibration: Public feature rows that activations may be measured on, or None.
      schema: Of the columns; None for a named data set with its own preparation.
      label_names: By label.
      feature_names: By encoded column; empty where columns have no names.
      task: What the model predicts.
      status: What stands behind it.
      payment: What pays for questions to private rows; None where none may be asked.
      is_judged_privately: Whether scores come from private rows, through ``payment``;
        ``evaluation`` then holds rows that show speed and differences, no labels.
    """

    name: str
    run: LoadedRun
    model: Model
    weights: Any
    compressed: Any
    evaluation: Examples
    evaluation_source: str
    groups: tuple[tuple[str, ...], Array] | None
    calibration: Any
    schema: Schema | None
    label_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    task: Task
    status: ReleaseStatus
    payment: Payment | None = None
    is_judged_privately: bool = False

    def kind(self) -> dict[str, Any]:
        """What its outputs stand for: ``task`` and ``from_logits``."""
        from_logits = getattr(self.model.loss, "from_logits", True)
        return {"task": self.task, "from_logits": from_logits}

    def reference(self) -> Array:
        """The model's own outputs for the evaluation rows, [rows, ...]."""
        return Evaluator(self.model).predict(self.weights, self.evaluation)


class ServedModel(tf.Module):
    """A model with its weights as variables, and its signatures.

    ``features`` takes what the model was trained on; ``raw`` takes the columns of the
    schema as they are in a table, where there is a schema.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(name="served")
        self._model = source.model
        self._task = source.task
        self._structure = source.weights
        self.weights = [tf.Variable(leaf) for leaf in tf.nest.flatten(source.weights)]
        example = source.evaluation.features
        self.features = tf.function(
            self._features, input_signature=[_specs(example)], autograph=False
        )
        self.raw = None
        if source.schema is not None:
            self.raw = tf.function(
                partial(self._raw, source.schema),
                input_signature=[raw_signature(source.schema)],
                autograph=False,
            )

    def _features(self, features: Any) -> dict[str, tf.Tensor]:
        weights = tf.nest.pack_sequence_as(
            self._structure, [tf.convert_to_tensor(v) for v in self.weights]
        )
        seed = tf.constant([0, 0])
        result = self._model.forward(weights, features, training=False, seed=seed)
        outputs = tf.identity(output_values(result.outputs))
        if self._task != "classification":
            return {OUTPUTS: outputs}
        return {OUTPUTS: outputs, PROBABILITIES: self._probabilities(outputs)}

    def _raw(self, schema: Schema, columns: Any) -> dict[str, tf.Tensor]:
        return self._features(encoded_in_graph(schema, columns))

    def _probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        if not getattr(self._model.loss, "from_logits", True):
            return tf.identity(outputs)
        one = outputs.shape.rank == 1 or outputs.shape[-1] == 1
        return tf.sigmoid(outputs) if one else tf.nn.softmax(outputs)


def without_loops(served: ServedModel) -> Any:
    """The signature that takes features, with a copy of each recurrent step.

    Raises:
      ConfigError: If a recurrent layer takes too many steps, or any number of them.
    """
    with unrolled():
        return served.features.get_concrete_function()


def source_of(
    run: LoadedRun,
    *,
    public_rows: str | Path | None = None,
    payment: Payment | None = None,
    is_judged_privately: bool = False,
) -> Source:
    """The model of ``run``, and public rows to judge its variants by.

    Args:
      run: A finished run.
      public_rows: A file with the columns of the training data, whose rows may be seen
        by everyone; the run's own test rows, where they are public, by default.
      payment: Pays for what is asked of private rows.
      is_judged_privately: Whether ``payment`` covers scores on the run's private test
        rows; what else is measured is measured on rows drawn from the schema.

    Raises:
      PrivacyError: If there are no rows that are public.
      CheckpointError: If the run has not finished.
    """
    project = run.project()
    arrays = run.weights
    split = project.split
    weights = weights_like(arrays, project.model.init(seeds.root(0)))
    if public_rows is not None:
        _check_not_private(run, split, public_rows)
        given = _rows(run, public_rows)
        evaluation, groups = given.examples, None
        described = f"{Path(public_rows).name}, declared public"
    elif project.shows_test and _is_public(split, run):
        evaluation, groups = _own_rows(split)
        described = f"the test rows of {split.name}, which are public"
    elif is_judged_privately:
        evaluation, groups = _drawn_rows(run, split), None
        described = f"the private test rows of {split.name}, noised and paid for"
    else:
        raise PrivacyError(_PRIVATE.format(name=run.config.name))
    if not evaluation.num_examples:
        raise ConfigError("There are no test rows to judge an export by; give --data.")
    return Source(
        name=run.config.name,
        run=run,
        model=project.model,
        weights=weights,
        compressed=_compressed(run, weights),
        evaluation=evaluation,
        evaluation_source=described,
        groups=groups,
        calibration=_calibration(split),
        schema=_schema(run, split),
        label_names=split.label_names,
        feature_names=split.feature_names,
        task=_task(split),
        status=_status(run),
        payment=payment,
        is_judged_privately=is_judged_privately,
    )


def _status(run: LoadedRun) -> ReleaseStatus:
    """A release where the privacy report is one: its noise was drawn for release."""
    report = run.privacy_report
    if report is None:
        return "no_privacy"
    return "release" if report["status"] == "release" else "simulation"


def _compressed(run: LoadedRun, like: Any) -> Any:
    arrays = run.compressed_weights
    return None if arrays is None else weights_like(arrays, like)


_PRIVATE = (
    "The test rows of {name} are private. Choosing between variants by their scores, "
    "and writing the scores into a release, would be releases that nothing paid for. "
    "Give --data with rows that are public (export.public_rows), or the run's own test "
    'rows as data.test_path with data.test_sensitivity = "public"; or pay for noised '
    "scores (export.evaluation_epsilon, named before training)."
)


def _task(split: DataSplit) -> Task:
    """A file's split calls itself a classification whatever its label is."""
    is_number = split.train.examples.labels.dtype.kind == "f"
    return "regression" if is_number else split.task


def _is_public(split: DataSplit, run: LoadedRun) -> bool:
    declared = run.config.data.test_sensitivity or split.train.sensitivity
    return declared == "public"


def _own_rows(split: DataSplit) -> tuple[Examples, Any]:
    """The test rows, by client where they are divided and all clients are public."""
    clients = split.test_clients
    same = clients is not None and (
        clients.examples.num_examples == split.test.num_examples
    )
    if clients is None or not same or split.train.sensitivity != "public":
        return split.test, None
    sizes = clients.num_examples()
    names = tuple(clients.client_id(i) for i in range(clients.num_clients))
    return clients.examples, (names, np.repeat(np.arange(len(names)), sizes))


def _drawn_rows(run: LoadedRun, split: DataSplit) -> Examples:
    """Rows that hold nothing private; their labels are all 0 and mean nothing."""
    if not split.test.num_examples:
        raise ConfigError("There are no test rows to judge an export by; give --data.")
    schema = _schema(run, split)
    features = (
        synthetic(schema) if schema else shaped_like(split.train.examples.features)
    )
    return Examples(features=features, labels=np.zeros(NUM_ROWS, np.int32))


def _calibration(split: DataSplit) -> Any:
    train = split.train
    return train.examples.features if train.sensitivity == "public" else None


def _schema(run: LoadedRun, split: DataSplit) -> Schema | None:
    schema = schema_of(split.train)
    if schema is None and run.folder.schema.is_file():
        schema = load_schema(run.folder.schema)
    if schema is None and run.config.data.name is None:
        raise ConfigError(
            f"The rows of {run.config.name} came without a schema, so how raw values "
            "become the model's features is unknown, and a served model could encode "
            "them otherwise. Train with a schema (data.schema_path, or a file of rows)."
        )
    return schema


def _check_not_private(run: LoadedRun, split: DataSplit, path: str | Path) -> None:
    """Rows that the run declares private are not public because an option says so."""
    data, folder = run.config.data, run.folder.path
    private = [data.path] if split.train.sensitivity == "private" else []
    if not _is_public(split, run):
        private.append(data.test_path)
    own = {file_identity(given, folder) for given in private if given is not None}
    if file_identity(str(path), Path.cwd()) in own:
        raise PrivacyError(
            f"--data {path} names rows that {run.config.name} declares private, so "
            "they cannot be judged by for nothing. Give a file of public rows, or pay "
            "for noised scores (export.evaluation_epsilon, named before training)."
        )


def _rows(run: LoadedRun, path: str | Path) -> FederatedDataset:
    if not run.folder.schema.is_file():
        raise DataError(
            f"--data {path} cannot be read: the data of {run.config.name} have no "
            "schema; leave --data out to use the run's own test rows."
        )
    schema = load_schema(run.folder.schema)
    return read_rows(
        str(path), schema=schema.model_copy(update={"client": None}), name=str(path)
    )


def _specs(features: Any) -> Any:
    if isinstance(features, dict):
        return {name: _spec(array, name) for name, array in features.items()}
    return _spec(features, "features")


def _spec(array: Array, name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None, *array.shape[1:]], tf.as_dtype(array.dtype), name)
