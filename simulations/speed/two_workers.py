"""Two worker processes with one thread each, against two independent loops.

``python -m simulations.speed.two_workers``: both run the CNN's steps in turns. Two
loops that never wait for each other show what the machine gives to two processes; the
share of it that ``DistributedRuntime`` keeps, all-reduce included, is printed.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.core.addresses import free_addresses
from simulations.speed.environments import interpreter
from simulations.speed.process import MeasuredProcess
from simulations.speed.workload import save
from simulations.speed.workloads import WORKLOADS

_PER_TURN = 3


def main() -> None:
    """Prints the ratio of each turn, their median and their range."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=list(WORKLOADS), default="cnn")
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    workload = WORKLOADS[given.workload]()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        saved = save(workload, Path(folder))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        loops = _pair(stack, pool, "bound", saved, [{"intra": 1, "threads": [1]}] * 2)
        workers = _pair(stack, pool, "ours", saved, _cluster())
        ratios = []
        for turn in range(given.turns + 1):
            # Each loop trains all clients, so two of them do twice a round's work.
            alone = _seconds(pool, loops) / 2.0
            together = _seconds(pool, workers)
            if turn:
                ratios.append(alone / together)
                print(f"turn {turn}: {ratios[-1]:.3f}", flush=True)
    print(
        f"{given.workload}: {np.median(ratios):.3f} of two independent loops "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def _pair(
    stack: ExitStack,
    pool: ThreadPoolExecutor,
    peer: str,
    folder: Path,
    options: Sequence[dict[str, Any]],
) -> list[MeasuredProcess]:
    module = f"simulations.speed.peers.{peer}.worker"
    python = interpreter(peer)
    started = pool.map(
        lambda given: MeasuredProcess(python, module, folder, given), options
    )
    processes = list(started)
    for process in processes:
        stack.callback(process.end)
    return processes


def _seconds(pool: ThreadPoolExecutor, pair: list[MeasuredProcess]) -> float:
    """A round of both at the same time: the median round of the slower one."""
    taken = pool.map(lambda process: process.rounds(_PER_TURN), pair)
    return float(max(np.median(seconds) for seconds in taken))


def _cluster() -> list[dict[str, Any]]:
    cluster = {"worker": free_addresses(2)}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    return [
        {"tf_config": json.dumps({"cluster": cluster, "task": task})} for task in tasks
    ]


if __name__ == "__main__":
    main()
