"""The comparison as JSON, as Markdown tables and as a plot of ratios."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from fedtrain.core.files import write_atomically
from simulations.experiment import table
from simulations.speed.measure import Measurement, ratios
from simulations.speed.systems import BOUND, LEFT_OUT, OURS

TITLES = {
    "mlp": "MLP, 100 clients x 100 rows",
    "cnn": "CNN of McMahan et al., 10 clients x 100 images",
    "lstm": "Characters, 10 Shakespeare roles",
    "writers": "Small CNN, 539 MNIST writers",
}
# What issue and documentation promise: times as fast as a peer, share of the bound.
BARS: dict[tuple[str, str], float] = {
    ("mlp", "TFF"): 300,
    ("mlp", "Flower"): 500,
    ("mlp", "pfl"): 25,
    ("mlp", "FedJAX"): 5,
    ("mlp", "bound"): 0.8,
    ("cnn", "TFF"): 3.5,
    ("cnn", "Flower"): 7,
    ("cnn", "pfl"): 1.8,
    ("cnn", "FedJAX"): 5,
    ("cnn", "bound"): 0.9,
    ("lstm", "TFF"): 2.5,
    ("lstm", "Flower"): 4,
    ("lstm", "pfl"): 0.6,
    ("lstm", "FedJAX"): 1.5,
    ("lstm", "bound"): 0.85,
    ("writers", "TFF"): 10,
    ("writers", "pfl"): 3,
    ("writers", "bound"): 0.75,
}
_HEADER = (
    "system",
    "ms a round",
    "times fedtrain's",
    "(lowest to highest)",
    "processor ms",
    "bar",
    "difference",
    "set-up s",
    "peak MB",
)


def write(output: Path, name: str, results: Mapping[str, Measurement]) -> None:
    """Adds a workload's results to those in ``output`` and draws everything anew."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "results.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    everything[name] = {system: asdict(result) for system, result in results.items()}
    everything["machine"] = _machine()
    write_atomically(path, json.dumps(everything, indent=1).encode())
    known = read(path)
    text = "\n\n".join(table_of(title, known[title]) for title in known)
    (output / "table.md").write_text(text + "\n")
    plot(output / "ratios.png", known)


def read(path: Path) -> dict[str, dict[str, Measurement]]:
    """All workloads' results from ``results.json``."""
    everything = json.loads(path.read_text())
    everything.pop("machine")
    return {
        name: {system: Measurement(**result) for system, result in results.items()}
        for name, results in everything.items()
    }


def table_of(name: str, results: Mapping[str, Measurement]) -> str:
    """A workload's table, with settings, versions and who is left out below it."""
    rows = [_row(name, system, results) for system in results]
    notes = [f"- {system}: {_note(result)}" for system, result in results.items()]
    notes += [
        f"- {system}: left out, {reason}"
        for (system, workload), reason in LEFT_OUT.items()
        if workload == name
    ]
    body = table(_HEADER, rows)
    return "\n".join([f"### {TITLES.get(name, name)}", "", body, "", *notes])


def plot(path: Path, known: Mapping[str, Mapping[str, Measurement]]) -> None:
    """Bars of ratios on a logarithmic scale, one panel for each workload."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415 - after the choice of a backend

    figure, axes = pyplot.subplots(
        len(known), 1, figsize=(8, 0.6 + 2.2 * len(known)), squeeze=False
    )
    for axis, (name, results) in zip(axes[:, 0], known.items(), strict=True):
        _panel(axis, name, results)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axis: Any, name: str, results: Mapping[str, Measurement]) -> None:
    timed = [s for s, r in results.items() if r.stretches and s != OURS.name]
    values = [float(np.median(ratios(results, s, OURS.name))) for s in timed]
    bars = axis.barh(timed, values, left=1e-9, color="#4477aa")
    axis.set_xscale("log")
    axis.set_xlim(min([0.5, *values]) / 1.5, max([2.0, *values]) * 3)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
    axis.invert_yaxis()
    axis.set_title(f"{TITLES.get(name, name)}: time of a round over fedtrain's")


def _row(name: str, system: str, results: Mapping[str, Measurement]) -> list[str]:
    result = results[system]
    if not result.stretches:
        return [system, "failed", *[""] * (len(_HEADER) - 2)]
    spread = ratios(results, system, OURS.name)
    return [
        system,
        f"{1000 * result.seconds():.4g}",
        f"{np.median(spread):.3g}",
        f"{spread.min():.3g} to {spread.max():.3g}",
        f"{1000 * np.median(result.cpu_seconds):.4g}",
        _bar(name, system, float(np.median(spread))),
        "" if result.difference is None else f"{result.difference:.0e}",
        f"{result.seconds_to_start:.1f}",
        f"{result.peak_bytes / 1e6:.0f}",
    ]


def _bar(name: str, system: str, ratio: float) -> str:
    bar = BARS.get((name, system))
    if bar is None:
        return ""
    verdict = "met" if ratio >= bar else "missed"
    return f"{'' if system == BOUND.name else '>= '}{bar:g}: {verdict}"


def _note(result: Measurement) -> str:
    if result.failure:
        return f"left out, {result.failure.splitlines()[-1]}"
    versions = ", ".join(f"{name} {v}" for name, v in result.versions.items())
    settings = {k: v for k, v in result.settings.items() if k != "seconds"}
    return f"{versions}; {json.dumps(settings)}" if settings else versions


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "load": os.getloadavg(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return done.stdout.decode().strip()
