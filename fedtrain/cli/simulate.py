"""``fedtrain simulate``: the main job."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import fedtrain
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.cli.workers import TF_CONFIG, run_workers
from fedtrain.core.errors import ConfigError
from fedtrain.project.run_folder import RunFolder


def simulate(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[federation.toml]",
            help="The project file; without one, the embedded example (digits).",
            show_default=False,
        ),
    ] = None,
    *,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "-s",
            metavar="KEY=VALUE",
            help="Override a key, such as rounds.num_rounds=5.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run: its folder, or 'latest'."),
    ] = None,
    diagnostics: Annotated[
        bool,
        typer.Option(
            "--diagnostics",
            help="Private data: also write exact figures, to a folder that is NOT "
            "PRIVATE.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Try N worker processes on this machine. On several machines each is "
            "started with TF_CONFIG instead.",
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print the result.")] = (
        Format.text
    ),
) -> None:
    """Train as a project file says, over simulated clients."""
    if resume is not None and (file is not None or setting):
        raise ConfigError(
            "--resume goes on with a run as it was started; leave out the file and -s."
        )
    if workers is not None and workers > 1:
        options = ["--diagnostics"] * diagnostics + [f"--format={format.value}"]
        what = ["--resume", resume] if resume is not None else [str(file or "")]
        settings = [word for each in setting or () for word in ("-s", each)]
        words = [word for word in [*what, *settings, *options] if word]
        raise typer.Exit(run_workers(["simulate", *words], num_workers=workers))
    replicas = _joined()
    console = Console(stderr=True)
    if resume is not None:
        summary = fedtrain.resume(
            resume, console=console, diagnostics=diagnostics, replicas=replicas
        )
    else:
        summary = fedtrain.simulate(
            file,
            setting or (),
            console=console,
            diagnostics=diagnostics,
            replicas=replicas,
        )
    if replicas is not None and not replicas.is_chief:
        return
    if format is Format.json:
        show_json(summary)
    else:
        _show(summary)
    if diagnostics:
        _warn_of_diagnostics(summary)


def _joined() -> Any:
    """The replicas of all workers, by ``TF_CONFIG``; None where there is no other."""
    load_tensorflow(one_thread_per_operation=True, start=not os.environ.get(TF_CONFIG))
    if not os.environ.get(TF_CONFIG):
        return None
    joining = importlib.import_module("fedtrain.runtimes.joining")
    place = joining.place_from_environment()
    return None if place is None else joining.join(place, tell=note)


def _warn_of_diagnostics(summary: Mapping[str, Any]) -> None:
    folder = RunFolder(Path(summary["run"])).diagnostics
    note(
        f"\nNOT PRIVATE: {folder} holds exact figures computed from private data, "
        "outside the privacy guarantee. Keep that folder on this machine.",
        style="bold red",
    )


def _show(summary: Mapping[str, Any]) -> None:
    if summary["comparison"] is not None:
        rows = [_line(row, summary["metric"]) for row in summary["comparison"]]
        show_table(rows, title=f"{summary['name']}, after {summary['rounds']} rounds")
    elif summary["test"]:
        for name, value in summary["test"].items():
            show_text(f"test {name}  {value:.4g}")
    if summary["compressed"]:
        show_text(_compressed_line(summary["compressed"]))
    if summary["empty_clients"]:
        show_text(f"\nClients without rows: {summary['empty_clients']}")
    if summary["secure_aggregation"]:
        show_text(f"\n{summary['secure_aggregation']}")
    show_text(f"\n{summary['privacy_statement']}")
    show_text(f"\nRun folder  {summary['run']}", style="bold")


def _compressed_line(found: Mapping[str, Any]) -> str:
    scores = found["test"] or {}
    shown = "".join(f"test {name} {value:.4g}, " for name, value in scores.items())
    return (
        f"\nCompressed to {found['constraint']} in {found['fine_tuning_rounds']} more "
        f"rounds: {shown}{100 * found['gzip_share']:.1f} % of float32 after gzip"
    )


def _line(row: Mapping[str, Any], metric: str) -> dict[str, str]:
    low, high = row["low"], row["high"]
    spread = "" if low is None else f"{100 * low:.1f} to {100 * high:.1f} %"
    return {
        "": row["name"],
        f"test {metric}": f"{100 * row['value']:.1f} %",
        "from worst to best client": spread,
    }
