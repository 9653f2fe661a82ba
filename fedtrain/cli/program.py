"""What every program of fedtrain does around its commands: quiet, errors, codes."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from fedtrain.cli.output import fail
from fedtrain.core.errors import EXIT_CODES, ConfigError, FedtrainError


def program(name: str, *, help: str) -> typer.Typer:
    """The command line of one program; its help ends in the exit codes."""
    codes = "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    return typer.Typer(
        name=name,
        help=help,
        epilog=f"Exit codes: {codes}.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_program(app: Any, name: str, arguments: Sequence[str]) -> int:
    """Runs one command; every error becomes a sentence and an exit code."""
    _silence_tensorflow()
    as_json = "json" in [*arguments, ""][_after(arguments, "--format") :][:1] or (
        "--format=json" in arguments
    )
    try:
        app(list(arguments), prog_name=name)
    except FedtrainError as error:
        return fail(error, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)
    except OSError as error:
        if error.filename is None:
            return _unexplained(error)
        reason = f"{error.filename} cannot be used: {error.strerror}."
        return fail(ConfigError(reason), as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last place that can explain it
        return _unexplained(error)
    return 0


def _unexplained(error: Exception) -> int:
    traceback.print_exception(error)
    sys.stderr.write(f"An error inside fedtrain: {error}\n")
    return 1


def _silence_tensorflow() -> None:
    """Before its first import: the terminal is for the run's own words."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _after(arguments: Sequence[str], option: str) -> int:
    return arguments.index(option) + 1 if option in arguments else len(arguments)
