"""``fedtrain release``: check a release anywhere, or compare two."""

from pathlib import Path
from typing import Annotated

import typer

import fedtrain
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow

app = typer.Typer(
    help="Check and compare releases.", no_args_is_help=True, rich_markup_mode=None
)
_FORMAT = typer.Option("--format", help="How to print the result.")
_FOLDER = typer.Argument(help="A release's folder.")


@app.command()
def verify(
    folder: Annotated[Path, _FOLDER],
    *,
    signer: Annotated[
        str | None, typer.Option(help="Fingerprint of the key that must have signed.")
    ] = None,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Check a release's signature and every one of its files."""
    load_tensorflow()
    found = fedtrain.verify_release(folder, signer=signer)
    release = found.record
    if format is Format.json:
        show_json(
            {
                "name": release.name,
                "version": release.version,
                "release_status": release.release_status,
                "signer": found.signer,
                "is_own_key": found.is_own,
                "exit_code": found.exit_code,
            }
        )
    else:
        whose = "your own key" if found.is_own else "a key that is not yours"
        show_text(
            f"{release.name} {release.version}: {len(release.files)} files as they "
            f"were signed by {found.signer} ({whose})"
        )
        show_text(release.privacy_statement)
        if found.exit_code:
            note(f"Not a private release: {release.release_status}.", style="yellow")
    raise typer.Exit(found.exit_code)


@app.command()
def diff(
    first: Annotated[Path, _FOLDER],
    second: Annotated[Path, _FOLDER],
    *,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Show what differs between two releases."""
    load_tensorflow()
    rows = fedtrain.compare_releases(first, second)
    if format is Format.json:
        show_json(rows)
    elif rows:
        show_table(rows)
    else:
        show_text("The releases are the same.")
