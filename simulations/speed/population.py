"""Does a round cost the same with a million clients as with ten thousand?

Populations of about 20 rows a client are packed once. Then one process for each opens
its population and trains, all with the same cohort size, in turns, so that whatever
else the machine does disturbs them alike.

    python -m simulations.speed.population
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.data.cohorts import uniform_sampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples
from fedtrain.data.packed import open_packed, pack
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.strategies import Strategy

_SIZES = (10_000, 100_000, 1_000_000)
_COHORT = 1_000
_COLUMNS = 23
_ROUNDS_IN_TURN = 6
# Bars: seconds, GiB, and the share by which a round may be slower than the smallest's.
_OPENING_S, _MEMORY_GIB, _SLOWER = 5.0, 1.5, 0.15


class Measured(NamedTuple):
    """What one population took.

    Attributes:
      clients: In the population.
      opening_s: From the folder to a data set; for the files see ``packing_s``.
      packing_s: None where it had been packed before.
      peak_gib: Most memory the process held, mapped pages of the data included.
      round_ms: Of each measured round.
    """

    clients: int
    opening_s: float
    packing_s: float | None
    peak_gib: float
    round_ms: list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Packs what is missing, measures, prints the table; 1 where a bar is missed."""
    options = _options(arguments)
    if options.worker == "pack":
        _pack(options.folder, options.sizes[0])
        return 0
    if options.worker == "train":
        _train(options)
        return 0
    packing = {size: _packed(options, size) for size in options.sizes}
    measured = _measure(options, packing)
    print(table(measured))
    return int(not all(met(one, measured[0]) for one in measured))


def table(measured: Sequence[Measured]) -> str:
    """Markdown: a row for each population."""
    lines = [
        "| clients | packing s | opening s | peak memory GiB | round ms, median "
        "(quartiles) | of the smallest | bars |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        low, median, high = statistics.quantiles(one.round_ms, n=4)
        packing = "cached" if one.packing_s is None else f"{one.packing_s:.1f}"
        lines.append(
            f"| {one.clients:,} | {packing} | {one.opening_s:.4f} | {one.peak_gib:.2f}"
            f" | {median:.1f} ({low:.1f} to {high:.1f}) | {ratio(one, measured[0]):.2f}"
            f" | {'met' if met(one, measured[0]) else 'missed'} |"
        )
    return "\n".join(lines)


def ratio(one: Measured, smallest: Measured) -> float:
    """Median round time, over that of the smallest population."""
    return statistics.median(one.round_ms) / statistics.median(smallest.round_ms)


def met(one: Measured, smallest: Measured) -> bool:
    """Whether all three bars are met."""
    return (
        one.opening_s < _OPENING_S
        and one.peak_gib < _MEMORY_GIB
        and ratio(one, smallest) <= 1.0 + _SLOWER
    )


def population(num_clients: int) -> FederatedDataset:
    """Clients of 1 to about 40 rows, 20 on average; labels follow a random plane."""
    random = seeds.generator(seeds.derive(seeds.root(0), "population", num_clients))
    offsets = np.concatenate([[0], np.cumsum(random.poisson(19, num_clients) + 1)])
    features = random.random([int(offsets[-1]), _COLUMNS], np.float32)
    plane = random.random(_COLUMNS, np.float32)
    labels = (features @ plane > plane.sum() / 2).astype(np.int32)
    return FederatedDataset(
        examples=Examples(features=features, labels=labels),
        offsets=offsets,
        client_ids=[f"client-{number:07d}" for number in range(num_clients)],
        sensitivity="public",
        name=f"population of {num_clients:,}",
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--turns", type=int, default=6, help="of six rounds each")
    parser.add_argument("--folder", type=Path, default=Path("runs/speed/population"))
    parser.add_argument("--strategy", choices=get_args(Strategy), default="stacked")
    parser.add_argument("--pack-again", action="store_true")
    parser.add_argument("--worker", choices=["pack", "train"], help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _packed(options: argparse.Namespace, size: int) -> float | None:
    """Seconds that packing took in a process of its own; None where it was there."""
    folder = options.folder / str(size)
    if options.pack_again:
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        return None
    done = subprocess.run(_command(options, size, "pack"), check=True, stdout=-1)
    return float(done.stdout)


def _pack(folder: Path, size: int) -> None:
    made = population(size)
    started = time.perf_counter()
    pack(made, folder / str(size))
    print(time.perf_counter() - started)


def _measure(
    options: argparse.Namespace, packing: dict[int, float | None]
) -> list[Measured]:
    with ExitStack() as stack:
        workers = {
            size: stack.enter_context(_worker(options, size)) for size in packing
        }
        round_ms: dict[int, list[float]] = {size: [] for size in packing}
        for turn in range(options.turns + 1):
            for size, worker in workers.items():
                taken = _answer(worker, "train")["round_ms"]
                # The first turn compiles, and a turn's first round was read ahead of
                # its turn.
                round_ms[size] += taken[1:] if turn else []
        ends = {size: _answer(worker, "end") for size, worker in workers.items()}
    return [
        Measured(
            clients=size,
            opening_s=ends[size]["opening_s"],
            packing_s=packing[size],
            peak_gib=ends[size]["peak_gib"],
            round_ms=round_ms[size],
        )
        for size in packing
    ]


def _worker(options: argparse.Namespace, size: int) -> Any:
    return subprocess.Popen(
        _command(options, size, "train"), stdin=-1, stdout=-1, text=True
    )


def _command(options: argparse.Namespace, size: int, worker: str) -> list[str]:
    command = [sys.executable, "-m", "simulations.speed.population"]
    settings = {
        "worker": worker,
        "sizes": size,
        "turns": options.turns,
        "folder": options.folder,
        "strategy": options.strategy,
    }
    return command + [f"--{name}={value}" for name, value in settings.items()]


def _answer(worker: Any, order: str) -> dict[str, Any]:
    worker.stdin.write(f"{order}\n")
    worker.stdin.flush()
    answer: dict[str, Any] = json.loads(worker.stdout.readline())
    return answer


def _train(options: argparse.Namespace) -> None:
    """Trains a turn whenever it is told to on its standard input."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    started = time.perf_counter()
    dataset = open_packed(options.folder / str(options.sizes[0]))
    opening_s = time.perf_counter() - started
    model = dense_classifier(_COLUMNS, 2, hidden=[64, 32])
    round_ms: list[float] = []

    def after_round(report: Any, state: Any) -> None:
        del state
        round_ms.append(1e3 * report.seconds)
        if len(round_ms) == _ROUNDS_IN_TURN:
            print(json.dumps({"round_ms": round_ms}), flush=True)
            round_ms.clear()
            sys.stdin.readline()

    run = TrainingRun(
        round_=fed_avg(local_sgd(model, sgd(0.1), Epochs(batch_size=20))),
        dataset=dataset,
        sampler=uniform_sampler(cohort_size=_COHORT),
        runtime=CompiledRuntime(strategy=options.strategy),
        num_rounds=_ROUNDS_IN_TURN * (options.turns + 1),
        seed=seeds.root(1),
        on_round=[after_round],
    )
    sys.stdin.readline()
    train(run, run.round_.init(model.init(seeds.root(0))))
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"opening_s": opening_s, "peak_gib": peak_gib}))


if __name__ == "__main__":
    sys.exit(main())
