"""What goes where: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedtrain.core.errors import FedtrainError
from fedtrain.project.problems import ProjectError


class Format(StrEnum):
    """How a result is printed."""

    text = "text"
    json = "json"


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


def show_text(text: str, *, style: str = "") -> None:
    """Text on standard output, with wrapping left to the terminal."""
    Console().print(Text(text, style=style), soft_wrap=True)


def show_table(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> None:
    """Rows with the same keys as a table on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # where nobody watches, nothing need be cut
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    console.print(table)


def note(text: str, *, style: str = "") -> None:
    """Text on standard error."""
    Console(stderr=True).print(Text(text, style=style), soft_wrap=True)


def fail(error: FedtrainError, *, as_json: bool) -> int:
    """Prints ``error``; returns its exit code."""
    if as_json:
        show_json({"error": _as_dict(error), "exit_code": error.exit_code})
    else:
        note(f"Error: {error}", style="red")
    return error.exit_code


def _as_dict(error: FedtrainError) -> dict[str, Any]:
    values: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, ProjectError):
        values["file"] = error.file
        values["problems"] = [problem.as_dict() for problem in error.problems]
    return values


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
