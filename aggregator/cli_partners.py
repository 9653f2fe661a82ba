"""``fedtrain-aggregator partners`` and ``page``: who takes part, and who may look."""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from aggregator.cli_options import AsFormat, Home
from aggregator.home import DEFAULT, federation_in
from fedtrain.cli.output import Format, show_json, show_table, show_text
from fedtrain.core.files import write_atomically

partners = typer.Typer(
    help="Who takes part, and until when.", no_args_is_help=True, rich_markup_mode=None
)
page = typer.Typer(
    help="Who may see the operator's page.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a person or machine.")]


@partners.command("list")
def list_partners(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Show the partners: their keys, when they last called, when certificates end."""
    from aggregator.seen import read_seen  # noqa: PLC0415

    federation = federation_in(home)
    seen = read_seen(federation.seen)
    rows: list[dict[str, Any]] = [
        {
            "partner": one.client_id,
            "state": one.state,
            "last seen": _moment(seen.get(one.client_id)),
            "certificate ends": _day(one.current.expires) if one.certificates else "",
            "admitted": _day(one.admitted),
            "software": one.software,
            "key": one.fingerprint,
        }
        for one in federation.authority().partners()
    ]
    if format is Format.json:
        show_json(rows)
    elif rows:
        show_table(rows, title="Partners")
    else:
        show_text("Nobody is admitted yet.")


@partners.command()
def revoke(
    client_id: str, *, home: Home = DEFAULT, format: AsFormat = Format.text
) -> None:
    """Refuse all further calls of a partner, from the next one on."""
    federation_in(home).authority().revoke(client_id)
    if format is Format.json:
        show_json({"client_id": client_id, "state": "revoked"})
        return
    show_text(f"Revoked {client_id}. Its calls are refused from now on.")


@partners.command()
def invite(
    client_ids: Annotated[list[str], typer.Argument(metavar="NAME...")],
    *,
    home: Home = DEFAULT,
    format: AsFormat = Format.text,
) -> None:
    """Write admitted partners' invitations again, for the present plan and keys."""
    federation = federation_in(home)
    authority, terms, written = federation.authority(), federation.terms(), []
    for name in client_ids:
        invitation = authority.invitation(name, terms)
        path = Path(f"{name}.invitation")
        write_atomically(path, invitation.to_bytes())
        written.append({"client_id": name, "invitation": str(path)})
    if format is Format.json:
        show_json(written[0] if len(written) == 1 else written)
        return
    for one in written:
        show_text(f"Wrote {one['invitation']}, for plan {terms.plan.sha256[:12]}.")


@page.command("admit")
def admit_to_page(
    name: Name, *, home: Home = DEFAULT, format: AsFormat = Format.text
) -> None:
    """Make a certificate that opens the page: NAME.pem, and NAME.p12 for a browser."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import pkcs12  # noqa: PLC0415

    from fedtrain.wire.certificates import certificate_in  # noqa: PLC0415
    from fedtrain.wire.identity import write_private  # noqa: PLC0415

    pair = federation_in(home).authority().operators.admit(name)
    password = secrets.token_urlsafe(12)
    key: Any = serialization.load_pem_private_key(pair.key_pem, None)
    bundle = pkcs12.serialize_key_and_certificates(
        name.encode(),
        key,
        certificate_in(pair.certificate_pem),
        None,
        serialization.BestAvailableEncryption(password.encode()),
    )
    write_private(Path(f"{name}.pem"), pair.key_pem + pair.certificate_pem)
    write_private(Path(f"{name}.p12"), bundle)
    files = {"pem": f"{name}.pem", "p12": f"{name}.p12", "p12_password": password}
    if format is Format.json:
        show_json({"name": name, **files})
        return
    show_text(f"Wrote {name}.pem (for curl) and {name}.p12 (for a browser).")
    show_text(f"Password of {name}.p12, shown this once: {password}")


@page.command("revoke")
def revoke_from_page(
    name: Name, *, home: Home = DEFAULT, format: AsFormat = Format.text
) -> None:
    """Refuse a certificate of the page, from the next request on."""
    federation_in(home).authority().operators.revoke(name)
    if format is Format.json:
        show_json({"name": name, "state": "revoked"})
        return
    show_text(f"{name} does not open the page any more.")


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def _moment(seen: Any) -> str:
    if seen is None:
        return "never"
    found = datetime.fromtimestamp(seen.last_seen_unix_ms / 1000, UTC)
    return found.strftime("%Y-%m-%d %H:%M UTC")
