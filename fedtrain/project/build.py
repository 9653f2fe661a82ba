"""From a checked configuration to the objects of a run; writes nothing."""

import importlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.compression.constraint import Constraint
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.sets.split import DataSplit
from fedtrain.models.model import Model
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.project.build_cohorts import sampler_of
from fedtrain.project.build_compression import constraint_of, tuning_round
from fedtrain.project.build_data import split_of
from fedtrain.project.build_model import model_of
from fedtrain.project.build_plan import plan_of
from fedtrain.project.build_privacy import private_round
from fedtrain.project.build_round import plain_round
from fedtrain.project.config import ProjectConfig, RuntimeSection
from fedtrain.project.held_out import HeldOut, held_out_of
from fedtrain.project.secure_session import session_of
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.round import Round
from fedtrain.rounds.runtime import Runtime
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime
from fedtrain.runtimes.secure import SecureRuntime
from fedtrain.secagg.parameters import Parameters
from fedtrain.secagg.regions import Regions


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
      evaluator: Scores weights on rows; compiled once.
      plan: The calibrated privacy plan; None without ``[privacy]``. It covers the
        rounds of fine-tuning too.
      constraint: What compressed weights satisfy; None without ``[compression]``.
      tuning_round: One round under the constraint, privacy included.
      held_out: What the clients score the global model on, and how; None if nothing.
      given_model: The object that replaced ``[model]``, if any.
      given_data: The object that replaced ``data.path``, if any.
    """

    config: ProjectConfig
    folder: Path
    split: DataSplit
    model: Model
    sampler: CohortSampler
    round_: Round
    runtime: Runtime
    evaluator: Evaluator
    plan: PrivacyPlan | None = None
    constraint: Constraint | None = None
    tuning_round: Round | None = None
    held_out: HeldOut | None = None
    given_model: Any = None
    given_data: Any = None

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
        public = self.split.train.sensitivity == "public" and self.shows_test
        has_test = self.split.test.num_examples > 0
        return public and has_test and self.config.evaluation.baselines is not False

    def starting_weights(self) -> Any:
        """The weights before the first round."""
        return self.model.init(seeds.derive(self.seed, "weights"))


def build(
    config: ProjectConfig,
    *,
    folder: Path,
    model: Any = None,
    data: Any = None,
    allow_missing: bool = False,
) -> Project:
    """The objects that ``config`` describes, checked against each other.

    Args:
      config: From ``read_config``.
      folder: Where relative paths in it start.
      model: A Keras model or ``Model`` in place of ``[model]``.
      data: A pandas DataFrame or ``DataSplit`` in place of ``data.path``.
      allow_missing: Whether a schema that is inferred lets values be missing, as for
        the rows of a run that has begun.
    """
    parts = _parts(
        config, folder=folder, model=model, data=data, allow_missing=allow_missing
    )
    plan = parts.plan.calibrated() if parts.plan else None
    round_of = partial(_round, config, parts, plan)
    evaluator = Evaluator(parts.model)
    train, held_out = held_out_of(config, parts.split.train, evaluator)
    return Project(
        config=config,
        folder=folder,
        split=replace(parts.split, train=train),
        model=parts.model,
        sampler=parts.sampler,
        round_=round_of(parts.model),
        runtime=runtime_of(config, session_of(config, train.num_clients)),
        evaluator=evaluator,
        plan=plan,
        constraint=parts.constraint,
        tuning_round=tuning_round(round_of, parts.model, parts.constraint),
        held_out=held_out,
        given_model=model,
        given_data=data,
    )


def planned(config: ProjectConfig, *, folder: Path) -> PrivacyPlan:
    """The plan of ``config``, before its noise is calibrated."""
    return planned_model(config, folder=folder)[0]


def planned_model(config: ProjectConfig, *, folder: Path) -> tuple[PrivacyPlan, Model]:
    """The same, and the model that it is for."""
    parts = _parts(config, folder=folder)
    if parts.plan is None:
        raise ConfigError(
            "There is no [privacy] section, so there is nothing to plan; see "
            "`fedtrain new` for one that is explained."
        )
    return parts.plan, parts.model


class _Parts(NamedTuple):
    split: DataSplit
    model: Model
    sampler: CohortSampler
    constraint: Constraint | None
    plan: PrivacyPlan | None


def _parts(
    config: ProjectConfig,
    *,
    folder: Path,
    model: Any = None,
    data: Any = None,
    allow_missing: bool = False,
) -> _Parts:
    sampler = sampler_of(config)
    split = split_of(config, folder=folder, given=data, allow_missing=allow_missing)
    sampler.expected_cohort_size(split.train.num_clients)
    built = model_of(config, split, folder=folder, given=model)
    trainable = built.init(seeds.root(0)).trainable
    constraint = constraint_of(config, trainable)
    if config.privacy is None:
        return _Parts(split, built, sampler, constraint, None)
    plan = plan_of(
        config,
        config.privacy,
        split=split,
        sampler=sampler,
        num_weights=nests.num_weights(trainable),
    )
    return _Parts(split, built, sampler, constraint, plan)


def _round(
    config: ProjectConfig, parts: _Parts, plan: PrivacyPlan | None, model: Model
) -> Round:
    if plan is None:
        return plain_round(config, model)
    return private_round(
        config,
        plan,
        model,
        expected_cohort_size=parts.sampler.expected_cohort_size(
            parts.split.train.num_clients
        ),
        reports_metrics=parts.split.train.sensitivity == "public",
    )


def runtime_of(
    config: ProjectConfig, session: Parameters | Regions | None = None
) -> Runtime:
    """The runtime of ``[runtime]``.

    Args:
      config: The settings.
      session: Of secure aggregation: the eager runtime then runs the whole protocol,
        the compiled one adds up the same numbers without masks.

    Raises:
      ConfigError: If it is TensorFlow Federated and that is not installed.
    """
    if config.runtime.kind == "compiled":
        return compiled_runtime(config.runtime)
    if config.runtime.kind == "eager":
        return EagerRuntime() if session is None else SecureRuntime(session)
    return _tff_runtime()


def compiled_runtime(
    section: RuntimeSection, *, num_workers: int | None = None
) -> CompiledRuntime:
    """The compiled runtime of ``[runtime]``; ``num_workers`` overrules the section."""
    return CompiledRuntime(
        strategy=None if section.strategy == "fastest" else section.strategy,
        num_workers=num_workers or section.num_workers,
        chunk_size=section.chunk_size,
        precision=section.precision,
    )


def _tff_runtime() -> Runtime:
    try:
        module = importlib.import_module("fedtrain.runtimes.tff")
    except ImportError as error:
        raise ConfigError(
            'runtime.kind = "tff" needs TensorFlow Federated (Python 3.11, extra "tff")'
            f', which is not there: {error}. Use "compiled" or "eager".'
        ) from error
    runtime: Runtime = module.TffRuntime()
    return runtime
