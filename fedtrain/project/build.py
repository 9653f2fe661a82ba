"""From a checked configuration to the objects of a run; writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, FedtrainError
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.sets.split import DataSplit
from fedtrain.models.model import Model
from fedtrain.project.build_cohorts import sampler_of
from fedtrain.project.build_data import split_of
from fedtrain.project.build_model import model_of
from fedtrain.project.build_round import plain_round
from fedtrain.project.config import ProjectConfig
from fedtrain.rounds.round import Round
from fedtrain.rounds.runtime import Runtime
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime


@dataclass(frozen=True, kw_only=True)
class Project:
    """A run before it has begun.

    Attributes:
      config: The checked configuration.
      folder: Where its relative paths start.
      split: The clients' rows, and the test rows.
      model: What is trained.
      sampler: Who takes part in a round.
      round_: One round of the algorithm, privacy included.
      runtime: Who carries rounds out.
      privacy: How the promise is kept and counted; None without ``[privacy]``.
      given_model: The object that replaced ``[model]``, if any.
    """

    config: ProjectConfig
    folder: Path
    split: DataSplit
    model: Model
    sampler: CohortSampler
    round_: Round
    runtime: Runtime
    privacy: Any = None
    given_model: Any = None

    @property
    def seed(self) -> seeds.HostSeed:
        """The seed of the whole run."""
        return seeds.root(self.config.seed)

    @property
    def is_protected(self) -> bool:
        """Private rows under differential privacy: nothing exact may be shown."""
        private = self.split.train.sensitivity == "private"
        return private and self.config.privacy is not None

    @property
    def shows_test(self) -> bool:
        """Whether scores on the test rows may be shown."""
        declared = self.config.data.test_sensitivity or self.split.train.sensitivity
        return self.config.privacy is None or declared == "public"

    @property
    def compares(self) -> bool:
        """Whether the run is compared with other ways to train; public data only."""
        public = self.split.train.sensitivity == "public"
        return public and self.config.evaluation.baselines is not False

    def starting_weights(self) -> Any:
        """The weights before the first round."""
        return self.model.init(seeds.derive(self.seed, "weights"))


def build(
    config: ProjectConfig, *, folder: Path, model: Any = None, data: Any = None
) -> Project:
    """The objects that ``config`` describes, checked against each other.

    Args:
      config: From ``read_config``.
      folder: Where relative paths in it start.
      model: A Keras model or ``Model`` in place of ``[model]``.
      data: A pandas DataFrame or ``DataSplit`` in place of ``data.path``.
    """
    split = split_of(config, folder=folder, given=data)
    built_model = model_of(config.model, split, folder=folder, given=model)
    sampler = sampler_of(config)
    sampler.expected_cohort_size(split.train.num_clients)
    round_ = plain_round(config, built_model)
    return Project(
        config=config,
        folder=folder,
        split=split,
        model=built_model,
        sampler=sampler,
        round_=round_,
        runtime=runtime_of(config),
        given_model=model,
    )


def runtime_of(config: ProjectConfig) -> Runtime:
    """The runtime of ``[runtime]``."""
    if config.runtime.kind == "compiled":
        return CompiledRuntime(num_workers=config.runtime.num_workers)
    return EagerRuntime()
