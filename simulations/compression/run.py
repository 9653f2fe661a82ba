"""From training to a release: sizes, accuracy lost, speed and outputs, against bars.

Three projects are trained, each from its own file: the network of the federated
averaging paper on MNIST by writer, and then by row-level privacy; and the credit model.
Each run is exported to a server and to the edge, and the table is made of the records.

``--timings`` exports finished runs again: latencies need a quiet machine.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.data.sets.files import data_file
from fedtrain.export.export_run import export_run
from fedtrain.export.record import Release, Variant
from fedtrain.project.load import load_run
from fedtrain.project.run import FINISHED
from fedtrain.project.simulate import resume, simulate
from simulations import experiment
from simulations.experiment import Scores

HERE = Path(__file__).resolve().parent
FILES = {
    "mnist": HERE / "mnist.toml",
    "mnist_private": HERE / "mnist_private.toml",
    "credit": HERE / "credit.toml",
}
_CREDIT = "default_credit/UCI_Credit_Card.csv"
_UCI = "https://archive.ics.uci.edu/dataset/350"
# No bound refuses a variant here: the table says what each loses.
_BOUNDS: dict[str, Any] = {"max_accuracy_drop": 100.0, "max_slice_drop": 100.0}
Measured = Mapping[str, Scores]


class Bar(NamedTuple):
    """A figure of a project, and what it must be.

    Attributes:
      project: One of ``FILES``.
      text: What is measured.
      measure: Takes the project's figures.
      most: The largest value that is within the bar, if there is one.
      least: The smallest one, if there is one.
    """

    project: str
    text: str
    measure: Callable[[Scores], float]
    most: float | None = None
    least: float | None = None


def _share(variant: str) -> Callable[[Scores], float]:
    """Bytes of an edge variant in percent of the float32 file."""
    return lambda f: 100 * f[f"edge_{variant}"] / f["edge_float32_bytes"]


def _speedup(figures: Scores) -> float:
    return figures["edge_float32_p50_s"] / figures["edge_int8_p50_s"]


def _figure(key: str) -> Callable[[Scores], float]:
    return lambda figures: figures[key]


_CNN = ("mnist", "mnist_private")
BARS = (
    *(Bar(name, "accuracy", _figure("source_accuracy")) for name in _CNN),
    Bar("mnist", "int8: % of float32", _share("int8_bytes"), most=26.0),
    Bar("mnist", "int8: times as fast, batch 1", _speedup, least=2.5),
    Bar("mnist", "int8: points lost", _figure("edge_int8_drop"), most=0.3),
    *(
        bar
        for name in _CNN
        for bar in (
            Bar(
                name,
                "compressed_int8, gzip: % of float32",
                _share("compressed_int8_gzip_bytes"),
                most=7.0,
            ),
            Bar(
                name,
                "compressed_int8: points lost",
                _figure("edge_compressed_int8_drop"),
                most=1.0,
            ),
        )
    ),
    *(
        Bar(
            name,
            "server: output difference",
            _figure("server_float32_difference"),
            most=1e-6,
        )
        for name in FILES
    ),
    Bar(
        "credit",
        "raw rows: output difference",
        _figure("server_float32_raw_difference"),
        most=1e-6,
    ),
    Bar(
        "credit",
        "raw rows: p99 seconds, batch 1",
        _figure("server_float32_raw_p99_s"),
        most=2e-3,
    ),
)


def main() -> None:
    """Trains and exports what is not done yet, and prints the table."""
    given = _arguments()
    measured = {
        name: _measured(name, given.output, again=given.timings)
        for name in FILES
        if name in given.only or not given.only
    }
    trials = {name: [scores] for name, scores in measured.items()}
    experiment.report(given.output, "compression", table(measured), trials)


def table(measured: Measured) -> str:
    """Every bar of the projects that were measured, then the seconds of each target."""
    rows = [_row(bar, measured[bar.project]) for bar in BARS if bar.project in measured]
    for name, figures in measured.items():
        rows += [
            [name, f"{key.removeprefix('seconds_')}: seconds", f"{value:.1f}", "", ""]
            for key, value in figures.items()
            if key.startswith("seconds_")
        ]
    return experiment.table(["project", "figure", "measured", "bar", "holds"], rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs") / "compression")
    parser.add_argument("--only", nargs="*", choices=FILES, default=())
    parser.add_argument(
        "--timings", action="store_true", help="export the finished runs once more"
    )
    return parser.parse_args()


def _measured(name: str, output: Path, *, again: bool) -> Scores:
    folder = output / name
    if again:
        (folder / "result.json").unlink(missing_ok=True)
    return experiment.remembered(folder, partial(_exported, name))


def _exported(name: str, folder: Path) -> Scores:
    started = time.perf_counter()
    run = _trained(name, folder.resolve())
    figures: dict[str, float] = {"seconds_training": time.perf_counter() - started}
    for target in ("server", "edge"):
        started = time.perf_counter()
        record = export_run(run, to=[target], accept_no_privacy=True, **_BOUNDS).record
        figures[f"seconds_{target}"] = time.perf_counter() - started
        figures |= _figures(record)
    return figures


def _trained(name: str, folder: Path) -> Path:
    """The run in ``folder``: finished, gone on with, or begun."""
    runs = sorted(folder.glob(f"runs/{name}*"))
    if not runs:
        settings = [f'tracking.runs_dir="{folder / "runs"}"']
        if name == "credit":
            settings.append(f'data.path="{data_file(_CREDIT, origin=_UCI).resolve()}"')
        return Path(simulate(FILES[name], settings)["run"])
    if load_run(runs[-1]).status != FINISHED:
        resume(runs[-1])
    return runs[-1]


def _figures(record: Release) -> dict[str, float]:
    source = {f"source_{k}": v for k, v in record.source_scores.items()}
    rows = [_of_variant(v) for v in record.variants]
    return source | {key: value for row in rows for key, value in row.items()}


def _of_variant(variant: Variant) -> dict[str, float]:
    found: dict[str, Any] = {
        "bytes": variant.size_bytes,
        "gzip_bytes": variant.gzip_bytes,
        "difference": variant.max_output_difference,
        "p50_s": variant.latency_1.p50_s,
        "p99_s": variant.latency_1.p99_s,
        "drop": variant.drop_points["accuracy"],
    }
    if variant.raw is not None:
        found["raw_p99_s"] = variant.raw.latency_1.p99_s
        found["raw_difference"] = variant.raw.max_output_difference
    prefix = f"{variant.target}_{variant.name}_"
    return {prefix + key: float(value) for key, value in found.items()}


def _row(bar: Bar, figures: Scores) -> list[str]:
    try:
        value = bar.measure(figures)
    except KeyError as error:  # a variant that could not be made or run
        return [bar.project, bar.text, f"no {error.args[0]}", "", "NO"]
    shown = [bar.project, bar.text, f"{value:.4g}"]
    if bar.most is not None:
        return [*shown, f"<= {bar.most:g}", "yes" if value <= bar.most else "NO"]
    if bar.least is not None:
        return [*shown, f">= {bar.least:g}", "yes" if value >= bar.least else "NO"]
    return [*shown, "", ""]


if __name__ == "__main__":
    main()
