"""What example-level DP costs: a round of DP-SGD over the same round without it.

    uv run python -m simulations.speed.example_privacy [mlp] [cnn]

Both train the same model on the same batches in the same runtime. Without the draw of
noise, the difference is what clipping each row's gradient costs.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import Carry, local_sgd, step_seed
from fedtrain.core import nests, seeds
from fedtrain.data.examples import Examples
from fedtrain.models.model import Batch, Model
from fedtrain.optimizers.optimizer import Optimizer
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.ghost_clipping import clipped_sum
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from simulations.speed.models import model_of
from simulations.speed.workload import Workload
from simulations.speed.workloads import WORKLOADS

_SEED = seeds.root(0)


def ratios(workload: Workload, *, runtime: Any = None, num_rounds: int = 7) -> Any:
    """Median seconds of a round, and each over that without DP.

    The kinds of round alternate, so that what else the machine does meets all alike.

    Args:
      workload: Rows, batches and first weights.
      runtime: Carries out the rounds; two graph loops side by side by default.
      num_rounds: Measured rounds of each kind, after one to warm up.
    """
    runtime = runtime or CompiledRuntime(strategy="graph")
    run = {
        name: _round(workload, work, runtime) for name, work in _works(workload).items()
    }
    for once in run.values():
        once()
    seconds = {name: [] for name in run}
    for _ in range(num_rounds):
        for name, once in run.items():
            seconds[name].append(once())
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    return {name: (s, s / medians["without"]) for name, s in medians.items()}


def _works(workload: Workload) -> dict[str, ClientWork]:
    model, optimizer = model_of(workload), sgd(workload.learning_rate)
    batching = Epochs(batch_size=workload.batch_size, shuffle=False)
    settings = {
        "clipping_norm": 1.0,
        "noise_multiplier": 1.0,
        "sampling_rate": 0.2,
        "local_steps": 5,
        "expected_batch_size": float(workload.batch_size),
    }
    plain = local_sgd(model, optimizer, batching, reports_metrics=False)
    private = dp_sgd(model, optimizer, **settings)
    return {
        "without": plain,
        "clipped": plain._replace(step=_clipped_step(model, optimizer, workload)),
        "clipped and noised": private._replace(batching=batching),
    }


def _clipped_step(model: Model, optimizer: Optimizer, workload: Workload) -> Any:
    """A step of DP-SGD without its noise, which is private for nobody."""

    def step(carry: Carry, batch: Batch) -> Carry:
        seed = step_seed(carry.seed, carry.step)
        total, _ = clipped_sum(model, carry.weights, batch, seed, clipping_norm=1.0)
        mean = nests.scale(total, 1.0 / workload.batch_size)
        trainable, slots = optimizer.update(carry.weights.trainable, carry.slots, mean)
        weights = carry.weights._replace(trainable=trainable)
        return carry._replace(weights=weights, slots=slots, step=carry.step + 1)

    return step


def _round(
    workload: Workload, work: ClientWork, runtime: CompiledRuntime
) -> Callable[[], float]:
    round_ = fed_avg(work, aggregator=mean_over_expected_cohort(workload.num_clients))
    state = round_.init(model_of(workload).init(_SEED))
    empty = round_.client_work.init_state(state.weights)
    cohort = []
    for i in range(workload.num_clients):
        features, labels = workload.client(i)
        examples = Examples(features=features, labels=labels)
        cohort.append(CohortClient(str(i), examples, empty))

    def once() -> float:
        start = time.perf_counter()
        result = runtime.run_round(round_, state, cohort, _SEED)
        nests.to_numpy(result.state.weights.trainable)
        return time.perf_counter() - start

    return once


def main() -> None:
    """Prints one line for each workload and kind of round."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    for name in sys.argv[1:] or ["mlp", "cnn"]:
        for kind, (seconds, ratio) in ratios(WORKLOADS[name]()).items():
            print(f"{name:5s} {kind:20s} {1e3 * seconds:8.1f} ms {ratio:6.2f}x")


if __name__ == "__main__":
    main()
