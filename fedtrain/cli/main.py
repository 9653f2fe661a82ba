"""The ``fedtrain`` command: its subcommands, and what each kind of error exits with."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import fedtrain
from fedtrain.cli import data, evaluate, export, ledger, new, plan, release, simulate
from fedtrain.cli.program import program, run_program

app = program("fedtrain", help="Federated, privacy-preserving training on TensorFlow.")
app.command("simulate")(simulate.simulate)
app.command("new")(new.new)
app.command("plan")(plan.plan)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.add_typer(release.app, name="release")
app.add_typer(data.app, name="data")
app.add_typer(ledger.app, name="ledger")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    return run_program(app, "fedtrain", arguments)


def _show_version(*, value: bool) -> None:
    if value:
        typer.echo(f"fedtrain {fedtrain.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    del version
