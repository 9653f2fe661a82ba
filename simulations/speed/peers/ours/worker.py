"""fedtrain, as its users run it: ``train`` with the compiled runtime."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.data.cohorts import full_participation
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples
from fedtrain.rounds.report import RoundReport
from fedtrain.rounds.round import ServerState
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.distributed import DistributedRuntime
from fedtrain.runtimes.replicas import Replicas
from simulations.speed.models import flat, model_of
from simulations.speed.session import Session, arguments
from simulations.speed.variants import round_of
from simulations.speed.workload import Array, Workload


class _EndOfRunError(Exception):
    """No further round is wanted."""


def main() -> None:
    """Serves rounds until standard input ends."""
    session = Session()
    workload, options = arguments()
    tf.config.threading.set_intra_op_parallelism_threads(options.get("intra", 1))
    lines: list[str] = []
    runtime = _runtime(options, lines)
    round_ = round_of(workload, options.get("variant", "plain"))
    state = round_.init(model_of(workload).init(seeds.root(0)))
    session.ready(versions=_versions(), settings=options)

    def weights(state: ServerState) -> Callable[[], list[Array]]:
        return lambda: _weights(workload, state)

    if not session.before_round(weights(state)):
        return

    def next_round(report: RoundReport, state: ServerState) -> None:
        del report
        session.after_round(chosen=lines)
        if not session.before_round(weights(state)):
            raise _EndOfRunError

    run = TrainingRun(
        round_=round_,
        dataset=dataset(workload),
        sampler=full_participation(),
        runtime=runtime,
        num_rounds=10**6,
        seed=seeds.root(0),
        on_round=(next_round,),
    )
    try:
        train(run, state)
    except _EndOfRunError:
        return


def _runtime(options: dict[str, Any], lines: list[str]) -> Any:
    """The compiled runtime; one worker of two where ``tf_config`` names them."""
    if "tf_config" in options:
        os.environ["TF_CONFIG"] = options["tf_config"]
        replicas = Replicas(tf.distribute.MultiWorkerMirroredStrategy())
        return DistributedRuntime(replicas, num_workers=1)
    return CompiledRuntime(**options.get("runtime", {}), tell=lines.append)


def dataset(workload: Workload) -> FederatedDataset:
    """The workload's clients as a population."""
    return FederatedDataset(
        examples=Examples(features=workload.features, labels=workload.labels),
        offsets=workload.offsets,
        client_ids=[f"client_{i}" for i in range(workload.num_clients)],
        sensitivity="public",
        name=workload.name,
    )


def _weights(workload: Workload, state: ServerState) -> list[Array]:
    return [np.asarray(leaf) for leaf in flat(workload, state.weights.trainable)]


def _versions() -> dict[str, Any]:
    return {"python": platform.python_version(), "tensorflow": tf.__version__}


if __name__ == "__main__":
    main()
