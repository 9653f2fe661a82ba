"""``fedtrain plan``: what privacy will cost, before anything is trained."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import fedtrain
from fedtrain.cli.output import Format, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow


class Unknown(StrEnum):
    """The one number to solve for."""

    noise = "noise"
    epsilon = "epsilon"
    rounds = "rounds"
    batch = "batch"


_COLUMNS = {
    "note": "",
    "noise_multiplier": "noise",
    "epsilon": "epsilon",
    "rdp_epsilon": "by RDP",
    "num_rounds": "rounds",
    "expected_count": "count",
    "sampling_rate": "rate",
    "signal_to_noise": "signal/noise",
}
_LEGEND = (
    "noise: multiplier of the clipping norm; count: expected units (rows, entities or "
    "clients) in one noised sum; rate: of their sampling; signal/noise: at most."
)


def plan(
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
        typer.Option("-s", metavar="KEY=VALUE", help="Override a key."),
    ] = None,
    solve_for: Annotated[
        Unknown | None,
        typer.Option(
            help="Solve for this number, keeping the others.", show_default=False
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print the result.")] = (
        Format.text
    ),
) -> None:
    """Show noise, epsilon, rounds and batch (or cohort) size; solve for one of them."""
    load_tensorflow()
    found = fedtrain.plan(file, setting or (), solve_for=solve_for)
    if format is Format.json:
        show_json(found)
        return
    show_table([_shown(row) for row in found["rows"]], title=found["title"])
    show_text(f"{_LEGEND}\n{found['statement']}")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {title: row[key] for key, title in _COLUMNS.items()}
