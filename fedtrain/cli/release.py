"""``fedtrain release``: check a release anywhere, compare two, and serve some."""

from pathlib import Path
from typing import Annotated, Any

import typer

import fedtrain
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.quiet import load_tensorflow

app = typer.Typer(
    help="Check, compare and serve releases.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_FORMAT = typer.Option("--format", help="How to print the result.")
_FOLDER = typer.Argument(help="A release's folder.")
_BASE = typer.Option(help="The folder that TensorFlow Serving reads.")


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


@app.command()
def publish(
    folder: Annotated[Path, _FOLDER],
    *,
    base: Annotated[Path, _BASE],
    variant: Annotated[
        str | None, typer.Option(help="Of the server target; else the recommended.")
    ] = None,
    signer: Annotated[
        str | None, typer.Option(help="Fingerprint of the key that must have signed.")
    ] = None,
    format: Annotated[Format, _FORMAT] = Format.text,
) -> None:
    """Add a release to the folder that TensorFlow Serving reads."""
    load_tensorflow()
    found = fedtrain.publish_release(folder, base, variant=variant, signer=signer)
    served = found.served
    if format is Format.json:
        labels = dict(served.labels)
        show_json({"folder": str(found.folder), "variant": found.variant, **labels})
        return
    show_text(f"{found.variant} variant published as {found.folder}")
    _show_labels(served)
    note(f"Its release status is {found.record.release_status}.", style="yellow")
    version = max(served.versions)
    if version not in served.labels.values():
        show_text(
            "Once the server has loaded it: fedtrain release label canary "
            f"{version} --base {base} --name {served.name}"
        )


@app.command()
def label(
    label: Annotated[str, typer.Argument(help="stable or canary.")],
    version: Annotated[int, typer.Argument(help="A version that is loaded.")],
    *,
    base: Annotated[Path, _BASE],
    name: Annotated[
        str | None, typer.Option(help="The model's, where there are several.")
    ] = None,
    signer: Annotated[
        str | None, typer.Option(help="Fingerprint of the key that must have signed.")
    ] = None,
) -> None:
    """Promote or roll back: move a label to another published version."""
    load_tensorflow()
    _show_labels(fedtrain.label_version(base, label, version, name=name, signer=signer))


def _show_labels(served: Any) -> None:
    labels = ", ".join(f"{name} is {v}" for name, v in sorted(served.labels.items()))
    versions = ", ".join(map(str, sorted(served.versions)))
    show_text(f"{served.name}: {labels}; versions {versions} are loaded")
