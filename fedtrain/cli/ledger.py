"""``fedtrain ledger``: what was spent on data, whether it is all there, and repair."""

from typing import Annotated, Any

import typer

import fedtrain
from fedtrain.cli.output import Format, show_json, show_text
from fedtrain.cli.quiet import load_tensorflow

app = typer.Typer(
    help="Show, verify and repair the privacy ledger of a run or of a data set.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_SOURCE = typer.Argument(
    metavar="RUN", help="A run's folder, 'latest', or a ledger's .jsonl file."
)
_FORMAT = typer.Option("--format", help="How to print the result.")


@app.command()
def show(
    source: Annotated[str, _SOURCE],
    *,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Show what was charged: entries, head, and the most that one unit spent."""
    load_tensorflow()
    found = fedtrain.show_ledger(source)
    if format is Format.json:
        show_json(found)
        return
    _show_facts(found)
    for unit, alternatives in found["largest"].items():
        for events in alternatives:
            show_text(f"largest, unit {unit}  {_listed(events)}")


@app.command()
def verify(
    source: Annotated[str, _SOURCE],
    *,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Check every entry's hash, and that nothing is gone; exit code 5 if not."""
    load_tensorflow()
    found = fedtrain.verify_ledger(source)
    show_json(found) if format is Format.json else _show_facts(found)


@app.command()
def repair(
    source: Annotated[str, _SOURCE],
    *,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Charge the worst case for what is damaged or missing."""
    load_tensorflow()
    found = fedtrain.repair_ledger(source)
    show_json(found) if format is Format.json else _show_facts(found)


def _show_facts(found: dict[str, Any]) -> None:
    for name, value in found.items():
        if not isinstance(value, dict):
            show_text(f"{name.replace('_', ' ')}  {value}")


def _listed(events: list[dict[str, Any]]) -> str:
    if not events:
        return "nothing"
    return "; ".join(
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in event.items())
        for event in events
    )
