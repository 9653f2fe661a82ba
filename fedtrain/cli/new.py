"""``fedtrain new NAME``: a project folder that runs as it is."""

from pathlib import Path
from typing import Annotated

import typer

from fedtrain.cli.output import Format, show_json, show_text
from fedtrain.project.new_project import write_project


def new(
    name: Annotated[str, typer.Argument(help="The folder to make.")],
    *,
    format: Annotated[Format, typer.Option(help="How to print the result.")] = (
        Format.text
    ),
) -> None:
    """Write a project: federation.toml with every key explained, and model.py."""
    files = write_project(Path(name))
    if format is Format.json:
        show_json({"folder": name, "files": [str(file) for file in files]})
        return
    show_text("\n".join(f"wrote {file}" for file in files))
    show_text(f"\nNext: cd {name} && fedtrain simulate federation.toml", style="bold")
