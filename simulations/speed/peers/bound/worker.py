"""The bound's process: tries its loops at one thread setting and keeps the fastest."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import tensorflow as tf

from simulations.speed import bound
from simulations.speed.bound import Loops
from simulations.speed.session import Session, arguments
from simulations.speed.stacked import can_stack
from simulations.speed.workload import Workload

_TRIALS = 3


def main() -> None:
    """Serves rounds of the fastest loop until standard input ends."""
    session = Session()
    workload, options = arguments()
    tf.config.threading.set_intra_op_parallelism_threads(options["intra"])
    with ThreadPoolExecutor(2) as pool:
        name, loops, seconds = fastest(workload, options, pool)
        settings = {**options, "loop": name, "seconds": seconds[name]}
        session.ready(versions=_versions(), settings=settings, tried=seconds)
        session.run(
            partial(bound.once, loops, pool), partial(bound.update, workload, loops)
        )


def fastest(
    workload: Workload, options: dict[str, Any], pool: ThreadPoolExecutor
) -> tuple[str, Loops, dict[str, float]]:
    """The fastest of all strategies, its loops, and every strategy's best time."""
    made = {name: make() for name, make in strategies(workload, options).items()}
    seconds = {name: _best_time(loops, pool) for name, loops in made.items()}
    name = min(seconds, key=seconds.__getitem__)
    return name, made[name], seconds


def strategies(
    workload: Workload, options: dict[str, Any]
) -> dict[str, Callable[[], Loops]]:
    """Loops by name, each for one and two threads."""
    kinds: dict[str, Callable[..., Loops]] = {"graph": bound.graph}
    if all(array.ndim < 4 for array in workload.weights):
        kinds["XLA"] = bound.xla
    if can_stack(workload):
        kinds["stacked"] = bound.stacked
        if workload.kind == "feedforward":
            kinds["stacked, XLA"] = partial(bound.stacked, jit_compile=True)
        else:
            kinds["stacked by 2"] = partial(bound.stacked, group=2)
    threads = options.get("threads", (1, 2))
    return {
        f"{kind}, {count} Python thread{'s' * (count > 1)}": partial(
            make, workload, count
        )
        for kind, make in kinds.items()
        for count in threads
    }


def _best_time(loops: Loops, pool: ThreadPoolExecutor) -> float:
    seconds = []
    for _ in range(_TRIALS + 1):
        started = time.perf_counter()
        bound.once(loops, pool)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "tensorflow": tf.__version__}


if __name__ == "__main__":
    main()
