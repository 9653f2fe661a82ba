"""``fedtrain data``: what there is, who holds what, and packing it for speed."""

from pathlib import Path
from typing import Annotated, Any

import typer

import fedtrain
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow

app = typer.Typer(
    help="List, describe and pack data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_FORMAT = typer.Option("--format", help="How to print the result.")
_SOURCE = typer.Argument(help="A named set, a project file, or a file of rows.")
_SETTING = typer.Option(
    "-s", metavar="KEY=VALUE", help="A key of [data], such as label=outcome."
)


@app.command("list")
def list_sets(*, format: Annotated[Format, _FORMAT] = Format.text) -> None:
    """List the named data sets."""
    load_tensorflow()
    rows = fedtrain.named_sets()
    show_json(rows) if format is Format.json else show_table(rows)


@app.command()
def describe(
    source: Annotated[str, _SOURCE],
    *,
    setting: Annotated[list[str] | None, _SETTING] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Write the inferred schema to this file.")
    ] = None,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Describe a data set: its clients, its labels, and how skewed they are."""
    load_tensorflow()
    found = fedtrain.describe_data(source, setting or (), schema_path=schema)
    if format is Format.json:
        show_json(found)
        return
    show_table([{"": name, " ": value} for name, value in found["summary"]])
    if schema is not None:
        note(f"wrote {schema}")


@app.command()
def pack(
    source: Annotated[str, _SOURCE],
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    *,
    setting: Annotated[list[str] | None, _SETTING] = None,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Pack a data set into a folder that opens in seconds, however large."""
    load_tensorflow()
    found: dict[str, Any] = fedtrain.pack_data(source, folder, setting or ())
    if format is Format.json:
        show_json(found)
        return
    show_text(
        f"packed {found['num_examples']} rows of {found['num_clients']} clients into "
        f'{folder}; use it with [data] path = "{folder}"'
    )
