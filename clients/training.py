"""A partner's share of a round with TensorFlow: the plan's round on its own rows."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clients.promise import check_promise
from clients.work import Cost, RoundTask
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError, WireError
from fedtrain.core.keystream import KeyStream, new_key
from fedtrain.data.dataset_check import check_dataset
from fedtrain.data.examples import Examples
from fedtrain.data.fingerprint import examples_sha256
from fedtrain.data.readers.read import read
from fedtrain.data.schema import Schema, parsed
from fedtrain.data.schema_check import missing_values
from fedtrain.privacy import events
from fedtrain.privacy.fixed_point_sum import ring_vector
from fedtrain.privacy.noise_key import forget_noise_key, noise_key, noise_key_path
from fedtrain.privacy.noise_source import NOISE_OF_PARTNERS, ReleasedNoise
from fedtrain.project.build import Project
from fedtrain.project.config import ProjectConfig
from fedtrain.project.crossing import (
    contribution_specs,
    crossing_of,
    is_masked,
    leaves,
    packed,
    specs,
)
from fedtrain.project.deployed import deployed
from fedtrain.project.paid_evaluation import num_paid_evaluations
from fedtrain.project.read import checked_config
from fedtrain.rounds.client_evaluation import simulated_source
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.wire.arrays import Array, from_bytes, to_bytes
from fedtrain.wire.plan import Plan

_MISSING = "The schema is the plan's: ask the operator for one that allows it."
_LOG = logging.getLogger(__name__)


def work_of(plan: Plan, *, data: str, home: Path, client_id: str) -> "TrainingWork":
    """The work of ``plan`` on the rows in ``data``, checked before any is done.

    Args:
      plan: What the partner approved.
      data: A path or URL that ``fedtrain.read`` takes; one partner's rows.
      home: The client's folder; holds a custom model's file, if the plan names one.
      client_id: The partner's name.

    Raises:
      DataError: Naming row, column and value, if a row does not fit the schema.
      ConfigError: If this installation builds another round than the plan describes.
      PrivacyError: If the plan states another promise than its sections keep, or its
        delta is too large for so many rows.
    """
    schema = parsed(plan.task["schema"], where="the plan's schema")
    config = checked_config(plan.task["sections"], file="the plan")
    _check_own_files(config)
    _check_model_file(plan.task.get("model_sha256"), config.model.path, home)
    path = noise_key_path(f"{client_id}-{plan.sha256}")
    noise = ReleasedNoise(noise_key(path)) if plan.privacy else NOISE_OF_PARTNERS
    project = deployed(config, folder=home, schema=schema, noise=noise)
    check_promise(plan, project)
    _check_crossing(project, plan)
    rows = own_rows(data, schema, num_classes=project.split.num_classes)
    _check_delta(project, rows.num_examples)
    return TrainingWork(project, rows, noise=noise, client_id=client_id, key_path=path)


def own_rows(data: str, schema: Schema, *, num_classes: int) -> Examples:
    """All rows in ``data`` as one client's, checked against ``schema``."""
    alone = schema.model_copy(update={"client": None})
    with missing_values(_MISSING):
        found = read(data, schema=alone, sensitivity="private", name=Path(data).name)
    classes = max(num_classes, 2) if schema.num_classes else None
    check_dataset(found, num_classes=classes)
    return found.examples


class TrainingWork:
    """Computes one partner's contributions.

    Args:
      project: Built from the plan; the aggregator built the same.
      rows: The partner's own.
      noise: Of its own key.
      client_id: The partner's name.
      key_path: Where the key of ``noise`` lies, if it has one.

    Attributes:
      kept: See ``Work``: the leaves of the client's state.
    """

    def __init__(
        self,
        project: Project,
        rows: Examples,
        *,
        noise: ReleasedNoise,
        client_id: str,
        key_path: Path,
    ) -> None:
        self._project = project
        self._num_examples = rows.num_examples
        self._train = self._kept = rows
        if project.held_out is not None:
            is_kept = project.held_out.is_kept(rows)
            self._train = rows.take(np.flatnonzero(~is_kept))
            self._kept = rows.take(np.flatnonzero(is_kept))
        self._rows_sha256 = examples_sha256(rows)
        self._noise = noise
        self._client_id = client_id
        self.kept = b""
        self._key_path = key_path
        self._runtime = CompiledRuntime(strategy="graph", num_workers=1)
        self._like = crossing_of(project.round_, project.starting_weights())

    @property
    def num_examples(self) -> int:
        """How many rows there are, those kept back included."""
        return self._num_examples

    def cost(self, task: RoundTask) -> Cost:
        """What one row (or entity, or all rows) spends by a contribution.

        Noise that the operator can subtract, and none, spend more than any epsilon.
        """
        plan = self._project.plan
        if plan is None or self._repeats_simulation:
            return Cost("example", {events.NonPrivate(): 1})
        noise = self._noise_seed(task).tobytes().hex()
        if task.kind == "train":
            counts = events.counted(plan.round_event())
            return Cost(plan.unit, counts, noise, plan.counted_rounds)
        held_out = self._project.held_out
        if held_out is None or held_out.cost is None:
            return Cost(plan.unit, {events.NonPrivate(): 1}, noise)
        most = num_paid_evaluations(self._project.config)
        return Cost(plan.unit, held_out.cost, noise, most)

    def compute(self, task: RoundTask, broadcast: Sequence[Array]) -> list[Array]:
        """The contribution to one round, as arrays in the order of the plan."""
        message = packed(broadcast, like=self._like.broadcast)
        if task.kind == "evaluate":
            return self._scores(task, message.weights)
        client = CohortClient(self._client_id, self._train, self._state(message))
        total, states = self._runtime.cohort_sum(
            self._project.round_, message, [client], self._seed(task)
        )
        state = states[self._client_id]
        self.kept = to_bytes(specs(state), leaves(state))
        if is_masked(self._project.round_):
            return [ring_vector(total)]
        return leaves(total)

    def _state(self, message: Any) -> Any:
        """What was kept; at first, or where the disk has lost it, a new client's."""
        new = self._project.round_.client_work.init_state(message.weights)
        if not self.kept:
            return new
        try:
            return packed(from_bytes(specs(new), self.kept), like=new)
        except WireError as error:
            _LOG.warning("What was kept for this round does not fit it: %s", error)
            return new

    def _scores(self, task: RoundTask, weights: Any) -> list[Array]:
        held_out = self._project.held_out
        if held_out is None:
            raise ConfigError("The plan that you approved has no evaluation rounds.")
        source = self._noise_of_scores(task)
        return leaves(held_out.evaluation.scores(weights, self._kept, source=source))

    def _noise_of_scores(self, task: RoundTask) -> KeyStream:
        """The same words for the same task: a crash shows no second noise."""
        if self._repeats_simulation:
            return simulated_source(self._seed(task), self._client_id)
        if self._project.plan is None:
            return KeyStream(new_key())  # exact sums do not read it
        inputs = self._inputs(task)
        return KeyStream(self._noise.key, "evaluation", task.round_number, inputs)

    def forget(self) -> None:
        """Deletes the key of the noise; a later start makes another, and pays anew."""
        forget_noise_key(self._key_path)

    @property
    def _repeats_simulation(self) -> bool:
        service = self._project.config.service
        return service is not None and service.repeats_simulation

    def _seed(self, task: RoundTask) -> seeds.HostSeed:
        """Draws that nobody can repeat but this partner, after a crash."""
        if self._repeats_simulation:
            return np.array(task.info["seed"], np.int32)
        if self._project.plan is None:
            return np.frombuffer(os.urandom(8), np.int32)
        return self._noise_seed(task)

    def _noise_seed(self, task: RoundTask) -> seeds.HostSeed:
        return self._noise.client_seed(task.round_number, self._inputs(task))

    def _inputs(self, task: RoundTask) -> str:
        named = f"{task.name} {task.broadcast_sha256} {self._rows_sha256}"
        return f"{named} {task.session}" if task.session else named


def _check_crossing(project: Project, plan: Plan) -> None:
    crossing = crossing_of(project.round_, project.starting_weights())
    sent = contribution_specs(project.round_, crossing.contribution)
    own = specs(crossing.broadcast), sent
    if own != (tuple(plan.broadcast), tuple(plan.contribution)):
        raise ConfigError(
            "This installation builds another round than the plan describes: what it "
            "would send has other shapes. Install the version that the plan names "
            f"({plan.software})."
        )


def _check_delta(project: Project, num_rows: int) -> None:
    privacy = project.config.privacy
    if privacy is None or privacy.unit == "client" or privacy.delta * num_rows < 1.0:
        return
    raise PrivacyError(
        f"The plan's delta {privacy.delta:g} is not below 1 over your {num_rows} rows "
        f"({1.0 / num_rows:.2g}): it would allow publishing a row whole. Ask the "
        "operator for a plan with a smaller delta."
    )


def _check_own_files(config: ProjectConfig) -> None:
    """A plan names no files of the partner's but the model that it was given."""
    model, test = config.model.path, config.data.test_path
    if test is not None or (model is not None and Path(model).name != model):
        raise ConfigError(
            f"The plan names files on your machine (model.path {model!r}, "
            f"data.test_path {test!r}); only a model's plain file name is taken. Ask "
            "the operator for another plan."
        )


def _check_model_file(expected: str | None, path: str | None, home: Path) -> None:
    if path is None:
        return
    file = home / path
    if not file.is_file():
        raise ConfigError(
            f"The plan trains the model in a file of its own, {path}, which never "
            f"crosses the wire. Get it from the operator, read it, and put it at"
            f" {file}."
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise ConfigError(
            f"{file} is not the model file of the plan: its SHA-256 is {found}, the "
            f"plan's is {expected}. Get the file that the plan was made with."
        )
