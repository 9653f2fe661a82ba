"""The ``fedtrain`` command: its subcommands, and what each kind of error exits with."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import fedtrain
from fedtrain.cli import data, evaluate, export, ledger, new, plan, release, simulate
from fedtrain.cli.output import fail
from fedtrain.core.errors import EXIT_CODES, FedtrainError

app = typer.Typer(
    name="fedtrain",
    help="Federated, privacy-preserving training on TensorFlow.",
    epilog="Exit codes: "
    + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    + ".",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
    _silence_tensorflow()
    as_json = "json" in [*arguments, ""][_after(arguments, "--format") :][:1] or (
        "--format=json" in arguments
    )
    try:
        app(list(arguments), prog_name="fedtrain")
    except FedtrainError as error:
        return fail(error, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:  # noqa: BLE001 - the last place that can explain it
        traceback.print_exc()
        sys.stderr.write(f"An error inside fedtrain: {error}\n")
        return 1
    return 0


def _silence_tensorflow() -> None:
    """Before its first import: the terminal is for the run's own words."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _after(arguments: Sequence[str], option: str) -> int:
    return arguments.index(option) + 1 if option in arguments else len(arguments)


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
