"""The ``fedtrain-aggregator`` command: what an operator does."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from aggregator.cli_authority import authority
from aggregator.cli_keep import audit, backup, repair, restore
from aggregator.cli_options import AsFormat, Home
from aggregator.cli_partners import page, partners
from aggregator.cli_region import region
from aggregator.cli_runs import runs
from aggregator.home import DEFAULT, Federation, federation_in, found
from aggregator.logs import LogFormat, log_to_stderr
from aggregator.page_words import clock
from fedtrain.cli.export import show_release
from fedtrain.cli.output import Format, show_json, show_table, show_text
from fedtrain.cli.program import program, run_program
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically

app = program(
    "fedtrain-aggregator", help="The operator's side of a federation of partners."
)
app.add_typer(authority, name="authority")
app.add_typer(partners, name="partners")
app.add_typer(page, name="page")
app.add_typer(region, name="region")
app.add_typer(runs, name="runs")
app.add_typer(audit, name="audit")
app.command()(backup)
app.command()(restore)
app.command()(repair)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run_program(app, "fedtrain-aggregator", given))


@app.command()
def init(
    project: Annotated[Path, typer.Argument(metavar="FEDERATION.TOML")],
    *,
    home: Home = DEFAULT,
    operator: Annotated[
        str, typer.Option(help="Who you are, for partners to read.")
    ] = "the operator",
    format: AsFormat = Format.text,
) -> None:
    """Make the certificate authority, the server's identity, and the plan."""
    if (home / "authority").exists():
        raise ConfigError(
            f"{home} holds a federation already, which partners rely on. Name another "
            "folder with --home for a new one."
        )
    load_tensorflow()
    from aggregator import authority, planning  # noqa: PLC0415 - after TensorFlow
    from fedtrain.project.deployed import deployed  # noqa: PLC0415

    federation = Federation(home, project, operator)
    config = federation.config()
    plan = planning.plan_for(deployed(config, folder=project.parent), operator=operator)
    service = federation.service()
    made = authority.init(home / "authority", name=config.name, hosts=service.hosts)
    federation.write_plan(plan)
    found(federation)
    partners = federation.partners()
    facts = {
        "home": str(home),
        "fingerprint": made.fingerprint,
        "plan_sha256": plan.sha256,
        "partners": list(partners),
    }
    if format is Format.json:
        show_json(facts)
        return
    show_text(f"Federation {config.name} in {home}; the keys in it never leave it.")
    show_text(f"Plan          {plan.sha256}")
    show_text(f"Your key      {made.fingerprint}")
    show_text("              (partners compare these words with you over the phone)")
    show_text(
        f"Next          each of {', '.join(partners)} runs `fedtrain-client "
        "request NAME` and sends you the file; you run `fedtrain-aggregator admit`."
    )


@app.command()
def admit(
    request: Annotated[Path, typer.Argument(metavar="NAME.REQUEST")],
    *,
    home: Home = DEFAULT,
    yes: Annotated[
        bool, typer.Option("--yes", help="The fingerprint was compared already.")
    ] = False,
    format: AsFormat = Format.text,
) -> None:
    """Sign a partner's request; writes the invitation to send back."""
    from fedtrain.wire.enrolment import read_request  # noqa: PLC0415

    federation = federation_in(home)
    asked = read_request(request)
    expected = federation.partners()
    if asked.client_id not in expected:
        raise ConfigError(
            f"{asked.client_id!r} is not among the partners that the plan of {home} "
            f"has here ({', '.join(expected)}). The partner asks again "
            "with one of these names, or you make a new plan."
        )
    if not yes:
        show_text(f"{asked.client_id} says its key is\n  {asked.fingerprint}")
        typer.confirm("Did you compare it with the partner, by voice?", abort=True)
    invitation = federation.authority().admit(asked, federation.terms())
    path = request.with_name(f"{asked.client_id}.invitation")
    write_atomically(path, invitation.to_bytes())
    if format is Format.json:
        show_json({"client_id": asked.client_id, "invitation": str(path)})
        return
    show_text(f"Admitted {asked.client_id}. {_next_of(federation, path)}")


def _next_of(federation: Federation, invitation: Path) -> str:
    """What is done with a new invitation; alone it has not the keys of all."""
    if not federation.plan().secure_aggregation:
        return f"Send it {invitation}; there is no secret in it."
    names, admitted = federation.partners(), federation.authority().roster()
    missing = [name for name in names if name not in admitted]
    once = f"once {', '.join(missing)} are in, too" if missing else "now, as all are in"
    return (
        f"Invite all {once}: `fedtrain-aggregator partners invite {' '.join(names)}`. "
        "For secure aggregation an invitation has the keys of all partners."
    )


@app.command()
def serve(
    *,
    home: Home = DEFAULT,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the events on standard error.")
    ] = LogFormat.text,
    export: Annotated[
        bool, typer.Option("--export", help="Export the finished model ([export]).")
    ] = False,
    format: AsFormat = Format.text,
) -> None:
    """Run the rounds with the partners, to the end or until you stop it."""
    from aggregator.serve import serve as serve_federation  # noqa: PLC0415

    federation = federation_in(home)
    if federation.region:
        raise ConfigError(
            f"{home} is of {federation.region}: `fedtrain-aggregator region serve` "
            "with the invitation from above. It has no model to train."
        )
    log_to_stderr(log_format)
    # With JSON lines nothing else may stand between them.
    console = Console(stderr=True, quiet=log_format is LogFormat.json)
    summary = serve_federation(federation, console=console, exports=export)
    if format is Format.json:
        show_json(summary)
        return
    show_text(f"Run folder           {summary['run']}", style="bold")
    if "release" in summary:
        from fedtrain.export.record import read_record  # noqa: PLC0415

        release = Path(summary["release"])
        show_release(read_record(release).model_dump(mode="json"), release)


@app.command()
def demo(
    *,
    folder: Annotated[
        Path | None, typer.Option(help="New; a temporary one by default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of training.")] = 5,
    epsilon: Annotated[float, typer.Option(min=0.01, help="Of the plan.")] = 8.0,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure", help="Five partners, only sums are seen, one of them is killed."
        ),
    ] = False,
    format: AsFormat = Format.text,
) -> None:
    """A whole federation on this machine: partners, mutual TLS, real rounds."""
    from aggregator.demo import demo as run_demo  # noqa: PLC0415
    from aggregator.demo_secure import demo_secure  # noqa: PLC0415

    where = folder or Path(tempfile.mkdtemp(prefix="fedtrain-demo-")) / "demo"
    run = demo_secure if secure else run_demo
    facts = run(where.resolve(), num_rounds=rounds, epsilon=epsilon)
    if format is Format.json:
        show_json(facts)
        return
    show_text(f"Done in {facts['seconds']} s. Everything is in {facts['folder']}.")


@app.command()
def status(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Say who is missing, since when, and when the round closes."""
    from aggregator.standing import standing  # noqa: PLC0415

    found_status = standing(federation_in(home))
    if format is Format.json:
        show_json(found_status)
        return
    ended = found_status["status"] not in ("running", "not started")
    how = f"{found_status['status']}: " if ended else ""
    show_text(f"{found_status['run_id']}: {how}{found_status['text']}")
    show_rounds(found_status)


@app.command()
def plan(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Show the plan in words, as every partner reads it before approving it."""
    from fedtrain.wire.plan_words import in_words  # noqa: PLC0415

    found_plan = federation_in(home).plan()
    if format is Format.json:
        show_json({"sha256": found_plan.sha256, **found_plan.model_dump(mode="json")})
        return
    show_text(in_words(found_plan))


@app.command()
def rotate(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Give the server a new certificate; a running one takes it up by itself."""
    authority = federation_in(home).authority()
    authority.rotate_server()
    ends = authority.server_certificate().not_valid_after_utc
    if format is Format.json:
        show_json({"server_certificate_ends": f"{ends:%Y-%m-%d}"})
        return
    show_text(f"The server has a new certificate, until {ends:%Y-%m-%d}.")


def show_rounds(found_status: Mapping[str, Any]) -> None:
    """One line for each round that is remembered; as in the log, the first is 1."""
    rows = [
        {
            "round": one["round_number"] + 1,
            "kind": one["kind"],
            "stage": one["stage"],
            "in": ", ".join(one["accepted"]),
            "missing": ", ".join(map(_missing, one["missing"])),
            "lost": ", ".join(f"{c} ({why})" for c, why in one["lost"].items()),
        }
        for one in found_status["rounds"]
    ]
    if rows:
        show_table(rows, title="Rounds")
    if found_status["round"] is not None:
        show_text(f"The open round closes {found_status['round']['closes']}.")


def _missing(one: Mapping[str, Any]) -> str:
    return (
        f"{one['client']} ({one['text']} {clock(one['since_unix_ms'])}".rstrip() + ")"
    )
