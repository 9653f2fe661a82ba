"""``fedtrain-aggregator region``: an aggregator between its partners and another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aggregator.cli_options import AsFormat, Home
from aggregator.home import DEFAULT, federation_in
from aggregator.logs import LogFormat, log_to_stderr
from fedtrain.cli.output import Format, show_json, show_text
from fedtrain.core.errors import ConfigError

region = typer.Typer(
    help="Be the aggregator of one region, below another aggregator.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
InvitationFile = Annotated[
    Path,
    typer.Argument(metavar="INVITATION", help="From the operator above the regions."),
]


@region.command()
def init(
    invitation: InvitationFile,
    *,
    address: Annotated[
        str, typer.Option(help="Where partners call, as HOST:PORT.")
    ] = "127.0.0.1:8480",
    page: Annotated[str, typer.Option(help="Of your page.")] = "127.0.0.1:8481",
    host: Annotated[
        str, typer.Option(help="That partners know you by: in your certificate.")
    ] = "localhost",
    home: Home = DEFAULT,
    format: AsFormat = Format.text,
) -> None:
    """Make the region's own authority and settings, with the plan from above."""
    from aggregator.region import region_of  # noqa: PLC0415
    from fedtrain.wire.enrolment import read_invitation  # noqa: PLC0415

    if (home / "authority").exists():
        raise ConfigError(
            f"{home} holds a federation already, which partners rely on. Name another "
            "folder with --home for a new one."
        )
    invited = read_invitation(invitation)
    own = {"address": address, "page": page, "host": host}
    fingerprint = region_of(invited, home, addresses=own)
    partners = federation_in(home).partners()
    if format is Format.json:
        show_json(
            {
                "home": str(home),
                "region": invited.client_id,
                "fingerprint": fingerprint,
                "plan_sha256": invited.plan_sha256,
                "partners": list(partners),
            }
        )
        return
    show_text(f"{invited.client_id} in {home}; the keys in it never leave it.")
    show_text(f"Plan          {invited.plan_sha256}, as above the regions")
    show_text(f"Your key      {fingerprint}")
    show_text("              (partners compare these words with you over the phone)")
    show_text(
        f"Next          each of {', '.join(partners)} runs `fedtrain-client request "
        "NAME` and sends you the file; you run `fedtrain-aggregator admit --home`."
    )


@region.command()
def serve(
    invitation: InvitationFile,
    *,
    home: Home = DEFAULT,
    client_home: Annotated[
        Path | None,
        typer.Option(help="Your folder as a partner; as of `fedtrain-client`."),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the events on standard error.")
    ] = LogFormat.text,
) -> None:
    """Add up the region's contributions until the run above has ended."""
    from aggregator.open_run import ended_by_sigterm  # noqa: PLC0415
    from aggregator.region import serve_region  # noqa: PLC0415
    from clients.home import Home as ClientHome  # noqa: PLC0415
    from clients.home import default_home  # noqa: PLC0415
    from fedtrain.wire.enrolment import read_invitation  # noqa: PLC0415

    invited = read_invitation(invitation)
    log_to_stderr(log_format)
    console = Console(stderr=True, quiet=log_format is LogFormat.json)
    own = ClientHome(client_home or default_home(invited.client_id), invited.client_id)
    with ended_by_sigterm():
        serve_region(federation_in(home), invited, own, console=console)
    show_text("The run has ended. Nothing more is added up here.")
