"""A run that several workers carry out together.

All of them build the same project and run the same rounds. The chief has the run's
folder; the others need neither it nor a disk that is shared.
"""

import hashlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from rich.console import Console

import fedtrain
from fedtrain.core.errors import ConfigError
from fedtrain.data.fingerprint import data_sha256
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.project.build import Project, compiled_runtime
from fedtrain.project.phases import train_phases
from fedtrain.project.run_folder import RunFolder
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.keepers import Charges, Checkpoints
from fedtrain.rounds.runtime import Runtime
from fedtrain.rounds.train import TrainingRun
from fedtrain.runtimes.distributed import DistributedRuntime
from fedtrain.runtimes.joining import place_from_environment
from fedtrain.runtimes.replicas import Replicas
from fedtrain.runtimes.shared import SharedCheckpoints, SharedPrivacy

# Where the program that started the workers looks for the run's folder.
WORKERS_DIR = "FEDTRAIN_WORKERS_DIR"
# Files lie elsewhere on every machine; what is tracked and where is the chief's matter.
_OWN_MATTERS: Any = {
    "data": {"path", "test_path", "schema_path"},
    "model": {"path"},
    "runtime": {"num_workers"},
    "tracking": True,
    "evaluation": True,
}


class Parts(NamedTuple):
    """Who carries rounds out, charges them and saves them."""

    runtime: Runtime
    privacy: Charges | None
    checkpoints: Checkpoints


def parts_of(
    project: Project,
    replicas: Replicas | None,
    *,
    charges: RunPrivacy | None,
    store: CheckpointStore,
) -> tuple[Project, Parts]:
    """The parts of a run; and the project, whose runtime then works by itself.

    Args:
      project: The run.
      replicas: Of all workers, the chief being this one; None where it is alone.
      charges: Of the run's ledger.
      store: Its checkpoints.
    """
    if replicas is None:
        return project, Parts(project.runtime, charges, store)
    runtime = distributed_runtime(project, replicas)
    require_same_project(project, replicas)
    parts = shared_parts(project, runtime, charges=charges, store=store)
    return replace(project, runtime=runtime.local), parts


def distributed_runtime(project: Project, replicas: Replicas) -> DistributedRuntime:
    """The runtime of all workers, with this one's share of its machine's cores.

    Raises:
      ConfigError: If the project's runtime is not the compiled one, or it has [stop].
    """
    section = project.config.runtime
    if project.config.stop is not None:
        raise ConfigError(
            "[stop] ends a run by scores that only one worker sees. Leave it out, or "
            "unset TF_CONFIG to train in one process."
        )
    if section.kind != "compiled":
        raise ConfigError(
            f"runtime.kind is {section.kind!r}, which runs in one process; several "
            'workers need "compiled". Change it, or unset TF_CONFIG.'
        )
    place = place_from_environment()
    threads = section.num_workers or (place.num_threads if place else None)
    return DistributedRuntime(
        replicas, local=partial(compiled_runtime, section), num_workers=threads
    )


def require_same_project(project: Project, replicas: Replicas) -> None:
    """Every worker trains the same model on the same rows in the same way.

    Raises:
      ConfigError: Naming the worker and what it has otherwise.
    """
    config = project.config
    state = project.round_.init(project.starting_weights())
    shapes = [(leaf.dtype.name, leaf.shape) for leaf in tf.nest.flatten(state)]
    model = Path(project.folder / config.model.path) if config.model.path else None
    source = model.read_bytes() if model and model.suffix == ".py" else b""
    facts = {
        "versions": f"{fedtrain.__version__} {tf.__version__}",
        "settings": json.dumps(config.model_dump(exclude=_OWN_MATTERS), default=str),
        "model": f"{shapes} {hashlib.sha256(source).hexdigest()}",
        "training data": data_sha256(project.split.train),
    }
    replicas.require_same(facts)


def shared_parts(
    project: Project,
    runtime: DistributedRuntime,
    *,
    charges: RunPrivacy | None,
    store: CheckpointStore | None,
) -> Parts:
    """The parts of a run of several workers.

    Args:
      project: The run.
      runtime: Of all workers.
      charges: The chief's; None elsewhere.
      store: The chief's checkpoints; None elsewhere.
    """
    privacy = None
    if project.plan is not None:
        privacy = SharedPrivacy(
            replicas=runtime.replicas,
            plan=project.plan,
            mechanisms=project.round_.mechanisms,
            sampler=project.sampler,
            is_private=project.is_protected,
            charges=charges,
        )
    return Parts(runtime, privacy, SharedCheckpoints(runtime.replicas, store))


def follow(project: Project, replicas: Replicas, *, console: Console) -> dict[str, Any]:
    """Takes part in a run whose chief is another worker; writes nothing.

    Args:
      project: The same as the chief's.
      replicas: All workers.
      console: Hears of each round.

    Returns:
      ``worker``, ``rounds`` and ``status``: the summary is the chief's.
    """
    runtime = distributed_runtime(project, replicas)
    require_same_project(project, replicas)
    parts = shared_parts(project, runtime, charges=None, store=None)
    training = TrainingRun(
        round_=project.round_,
        dataset=project.split.train,
        sampler=project.sampler,
        runtime=parts.runtime,
        num_rounds=project.config.rounds.num_rounds,
        seed=project.seed,
        privacy=parts.privacy,
        checkpoints=parts.checkpoints,
        on_round=[lambda report, _: console.print(f"round {report.round_number}")],
    )
    reports = train_phases(
        project, training, lambda: project.round_.init(project.starting_weights())
    ).reports
    return {"worker": replicas.worker, "rounds": len(reports), "status": "followed"}


def tell_run_folder(folder: RunFolder) -> None:
    """Tells the program that started the workers, if one did, where the run lies."""
    told = os.environ.get(WORKERS_DIR)
    if told:
        (Path(told) / "run").write_text(str(folder.path.resolve()), "utf-8")
