"""``fedtrain-aggregator authority``: the authority itself, and how it is replaced."""

from typing import Annotated, Any

import typer
from cryptography import x509

from aggregator.cli_options import AsFormat, Home
from aggregator.home import DEFAULT, Federation, federation_in
from aggregator.journal import locked_folder
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.core.errors import IdentityError

authority = typer.Typer(
    help="The authority that signs all certificates, and how it is replaced.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@authority.command()
def show(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Show which authority is trusted until when, and who is still to be moved."""
    _show(federation_in(home), format)


@authority.command()
def replace(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Make a new authority beside the present one; both are trusted until `finish`.

    Stop `serve` before, start it after: partners wait, and connect again. Then invite
    each partner anew.
    """
    federation = federation_in(home)
    lock = locked_folder(federation.journal)
    try:
        federation.authority().replace_authority()
    finally:
        lock.release()
    _show(federation, format)


@authority.command()
def finish(
    *,
    home: Home = DEFAULT,
    force: Annotated[
        bool,
        typer.Option("--force", help="Whoever was not invited anew is shut out."),
    ] = False,
    format: AsFormat = Format.text,
) -> None:
    """Forget the authority before: its certificates are refused. Stop `serve` before.

    Do so once each partner has joined with its new invitation.
    """
    federation = federation_in(home)
    lock = locked_folder(federation.journal)
    try:
        unmoved = federation.authority().unmoved()
        if unmoved and not force:
            raise IdentityError(
                f"{', '.join(unmoved)} would be shut out: invite each anew with "
                "`fedtrain-aggregator partners invite`, or say --force."
            )
        if federation.authority().authorities.before is None:
            note("No authority is being replaced; there is this one alone.")
        federation.authority().finish_replacement()
    finally:
        lock.release()
    _show(federation, format)


def _show(federation: Federation, format: Format) -> None:
    own = federation.authority()
    trusted: Any = own.authorities
    rows = [_row(trusted.present, "signs")]
    if trusted.before is not None:
        rows.append(_row(trusted.before, "trusted until `authority finish`"))
    unmoved = list(own.unmoved()) if trusted.before is not None else []
    if format is Format.json:
        show_json({"authorities": rows, "to_invite": unmoved})
        return
    show_table(rows, title="Authorities")
    if unmoved:
        show_text(f"Invite anew     {', '.join(unmoved)} (`partners invite NAME`)")


def _row(certificate: x509.Certificate, what: str) -> dict[str, Any]:
    return {
        "authority": f"{certificate.serial_number:x}"[:16],
        "what": what,
        "since": f"{certificate.not_valid_before_utc:%Y-%m-%d}",
        "ends": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
    }
