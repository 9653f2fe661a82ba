"""What the experiments share: arguments, runs that resume, and tables with a verdict.

Every trial (one method with one seed) has a folder of its own with its checkpoints and
its curve, and leaves ``result.json`` when it is done. Started again, an experiment
reads the trials that are done and goes on with the one that was interrupted.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.core.files import write_atomically
from fedtrain.data.dataset import FederatedDataset, from_clients
from fedtrain.data.examples import Examples
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.report import RoundReport
from fedtrain.rounds.round import ServerState
from fedtrain.rounds.train import TrainingRun, train

Scores = Mapping[str, float]


class Expected(NamedTuple):
    """A figure to reproduce: published, or our own first measurement.

    Attributes:
      mean: The figure.
      tolerance: How much less still counts as reproduced.
    """

    mean: float
    tolerance: float


def arguments(
    description: str, *, name: str, num_seeds: int, num_rounds: int
) -> argparse.Namespace:
    """What every experiment can be told: seeds, rounds, output folder, methods."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=num_seeds, help="how many seeds")
    parser.add_argument("--rounds", type=int, default=num_rounds)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs") / name,
        help="what is done there is not done again",
    )
    parser.add_argument(
        "--only", nargs="*", default=(), help="methods to run; all where left out"
    )
    return parser.parse_args()


def remembered(folder: Path, measure: Callable[[Path], Scores]) -> Scores:
    """``measure(folder)``, or what it left there when it was done before."""
    path = folder / "result.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    started = time.perf_counter()
    scores = dict(measure(folder))
    scores["seconds"] = time.perf_counter() - started
    _write_json(path, scores)
    return scores


def trained(
    run: TrainingRun, state: ServerState, folder: Path, *, save_every: int = 10
) -> ServerState:
    """``train(run, state)`` from the newest checkpoint in ``folder``, with its curve.

    Each evaluated round adds a line to ``curve.jsonl``. Rounds that are run again after
    an interruption add theirs again; they are the same to the bit.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def keep(report: RoundReport, state: ServerState) -> None:
        del state
        row = {
            "round": report.round_number + 1,
            **report.metrics,
            "seconds": report.seconds,
            "spent_epsilon": report.spent_epsilon,
        }
        with (folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    store = CheckpointStore(folder / "checkpoints", every=save_every)
    result = train(
        replace(run, checkpoints=store, on_round=(*run.on_round, keep)), state
    )
    return result.state


def curve(folder: Path) -> list[dict[str, Any]]:
    """The rounds of a trial in order, each once."""
    lines = (folder / "curve.jsonl").read_text().splitlines()
    rows = {row["round"]: row for row in map(json.loads, lines)}
    return [rows[number] for number in sorted(rows)]


def alone(examples: Examples) -> FederatedDataset:
    """A population of one client: pooled or local-only training."""
    return from_clients({"alone": examples}, sensitivity="public")


def mean_and_sd(trials: Sequence[Scores], score: str) -> tuple[float, float]:
    """Mean and standard deviation of ``score`` over seeds (sd 0 for one seed)."""
    values = [trial[score] for trial in trials]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if values[1:] else 0.0


def verdict(measured: float, expected: Expected | None) -> str:
    """Whether ``measured`` reproduces the published figure, or by how much not."""
    if expected is None:
        return ""
    # Rounded, so that a figure at the edge is not missed by a bit.
    shortfall = round(expected.mean - expected.tolerance - measured, 9)
    return "reproduced" if shortfall <= 0 else f"short by {shortfall:.4f}"


def repeated(measured: float, first: Expected) -> str:
    """Whether ``measured`` repeats our own first measurement; nothing is published."""
    difference = measured - first.mean
    return "as before" if abs(difference) <= first.tolerance else f"{difference:+.4f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines
    )


def report(output: Path, name: str, text: str, results: Mapping[str, Any]) -> None:
    """Prints the table, and writes it and the numbers into the output folder."""
    print(text)
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text(text + "\n")
    facts = {
        "experiment": name,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "trials": results,
    }
    _write_json(output / "results.json", facts)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(value, indent=1).encode())
