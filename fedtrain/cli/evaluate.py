"""``fedtrain evaluate RUN --data new.csv``: a finished run on new rows."""

from pathlib import Path
from typing import Annotated

import typer

import fedtrain
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow

_LOCAL = (
    "Exact scores of these rows, shown here only. If the rows are private, treat the "
    "scores as private too: nothing protects them."
)


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, or 'latest'.")
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(help="Rows like those it was trained on; else its test rows."),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print the result.")] = (
        Format.text
    ),
) -> None:
    """Score a finished run on new rows, or on its own test rows."""
    load_tensorflow()
    found = fedtrain.evaluate_run(run, data)
    if format is Format.json:
        show_json(found)
        return
    scores = [{"score": name, "value": v} for name, v in found["scores"].items()]
    show_text(f"{found['run']} on {found['num_examples']} rows")
    show_table(scores)
    note(_LOCAL, style="dim")
