"""The ``fedtrain-aggregator`` command: what an operator does."""from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

import sysfrom fedtrain.wire.certificates import certificate_in

import tempfilefrom fedtrain.wire.certificates import certificate_in

from collections.abc import Mapping, Sequencefrom fedtrain.wire.certificates import certificate_in

from pathlib import Pathfrom fedtrain.wire.certificates import certificate_in

from typing import Annotated, Anyfrom fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

import typerfrom fedtrain.wire.certificates import certificate_in

from rich.console import Consolefrom fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from aggregator.cli_keep import audit, backup, repair, restorefrom fedtrain.wire.certificates import certificate_in

from aggregator.cli_options import AsFormat, Homefrom fedtrain.wire.certificates import certificate_in

from aggregator.cli_partners import page, partnersfrom fedtrain.wire.certificates import certificate_in

from aggregator.cli_runs import runsfrom fedtrain.wire.certificates import certificate_in

from aggregator.home import DEFAULT, Federation, federation_in, foundfrom fedtrain.wire.certificates import certificate_in

from aggregator.logs import LogFormat, log_to_stderrfrom fedtrain.wire.certificates import certificate_in

from fedtrain.cli.output import Format, show_json, show_table, show_textfrom fedtrain.wire.certificates import certificate_in

from fedtrain.cli.program import program, run_programfrom fedtrain.wire.certificates import certificate_in

from fedtrain.cli.quiet import load_tensorflowfrom fedtrain.wire.certificates import certificate_in

from fedtrain.core.errors import ConfigErrorfrom fedtrain.wire.certificates import certificate_in

from fedtrain.core.files import write_atomicallyfrom fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

app = program(from fedtrain.wire.certificates import certificate_in

    "fedtrain-aggregator", help="The operator's side of a federation of partners."from fedtrain.wire.certificates import certificate_in

)from fedtrain.wire.certificates import certificate_in

app.add_typer(partners, name="partners")from fedtrain.wire.certificates import certificate_in

app.add_typer(page, name="page")from fedtrain.wire.certificates import certificate_in

app.add_typer(runs, name="runs")from fedtrain.wire.certificates import certificate_in

app.add_typer(audit, name="audit")from fedtrain.wire.certificates import certificate_in

app.command()(backup)from fedtrain.wire.certificates import certificate_in

app.command()(restore)from fedtrain.wire.certificates import certificate_in

app.command()(repair)from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

def main(arguments: Sequence[str] | None = None) -> None:from fedtrain.wire.certificates import certificate_in

    """Runs the command line and leaves the process with its exit code."""from fedtrain.wire.certificates import certificate_in

    given = sys.argv[1:] if arguments is None else argumentsfrom fedtrain.wire.certificates import certificate_in

    sys.exit(run_program(app, "fedtrain-aggregator", given))from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def init(from fedtrain.wire.certificates import certificate_in

    project: Annotated[Path, typer.Argument(metavar="FEDERATION.TOML")],from fedtrain.wire.certificates import certificate_in

    *,from fedtrain.wire.certificates import certificate_in

    home: Home = DEFAULT,from fedtrain.wire.certificates import certificate_in

    operator: Annotated[from fedtrain.wire.certificates import certificate_in

        str, typer.Option(help="Who you are, for partners to read.")from fedtrain.wire.certificates import certificate_in

    ] = "the operator",from fedtrain.wire.certificates import certificate_in

    format: AsFormat = Format.text,from fedtrain.wire.certificates import certificate_in

) -> None:from fedtrain.wire.certificates import certificate_in

    """Make the certificate authority, the server's identity, and the plan."""from fedtrain.wire.certificates import certificate_in

    if (home / "authority").exists():from fedtrain.wire.certificates import certificate_in

        raise ConfigError(from fedtrain.wire.certificates import certificate_in

            f"{home} holds a federation already, which partners rely on. Name another "from fedtrain.wire.certificates import certificate_in

            "folder with --home for a new one."from fedtrain.wire.certificates import certificate_in

        )from fedtrain.wire.certificates import certificate_in

    load_tensorflow()from fedtrain.wire.certificates import certificate_in

    from aggregator import authority, planning  # noqa: PLC0415 - after TensorFlowfrom fedtrain.wire.certificates import certificate_in

    from fedtrain.project.deployed import deployed  # noqa: PLC0415from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

    federation = Federation(home, project, operator)from fedtrain.wire.certificates import certificate_in

    config = federation.config()from fedtrain.wire.certificates import certificate_in

    plan = planning.plan_for(deployed(config, folder=project.parent), operator=operator)from fedtrain.wire.certificates import certificate_in

    service = federation.service()from fedtrain.wire.certificates import certificate_in

    made = authority.init(home / "authority", name=config.name, hosts=service.hosts)from fedtrain.wire.certificates import certificate_in

    federation.write_plan(plan)from fedtrain.wire.certificates import certificate_in

    found(federation)from fedtrain.wire.certificates import certificate_in

    facts = {from fedtrain.wire.certificates import certificate_in

        "home": str(home),from fedtrain.wire.certificates import certificate_in

        "fingerprint": made.fingerprint,from fedtrain.wire.certificates import certificate_in

        "plan_sha256": plan.sha256,from fedtrain.wire.certificates import certificate_in

        "partners": list(service.clients),from fedtrain.wire.certificates import certificate_in

    }from fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json(facts)from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(f"Federation {config.name} in {home}; the keys in it never leave it.")from fedtrain.wire.certificates import certificate_in

    show_text(f"Plan          {plan.sha256}")from fedtrain.wire.certificates import certificate_in

    show_text(f"Your key      {made.fingerprint}")from fedtrain.wire.certificates import certificate_in

    show_text("              (partners compare these words with you over the phone)")from fedtrain.wire.certificates import certificate_in

    show_text(from fedtrain.wire.certificates import certificate_in

        f"Next          each of {', '.join(service.clients)} runs `fedtrain-client "from fedtrain.wire.certificates import certificate_in

        "request NAME` and sends you the file; you run `fedtrain-aggregator admit`."from fedtrain.wire.certificates import certificate_in

    )from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def admit(from fedtrain.wire.certificates import certificate_in

    request: Annotated[Path, typer.Argument(metavar="NAME.REQUEST")],from fedtrain.wire.certificates import certificate_in

    *,from fedtrain.wire.certificates import certificate_in

    home: Home = DEFAULT,from fedtrain.wire.certificates import certificate_in

    yes: Annotated[from fedtrain.wire.certificates import certificate_in

        bool, typer.Option("--yes", help="The fingerprint was compared already.")from fedtrain.wire.certificates import certificate_in

    ] = False,from fedtrain.wire.certificates import certificate_in

    format: AsFormat = Format.text,from fedtrain.wire.certificates import certificate_in

) -> None:from fedtrain.wire.certificates import certificate_in

    """Sign a partner's request; writes the invitation to send back."""from fedtrain.wire.certificates import certificate_in

    from fedtrain.wire.enrolment import read_request  # noqa: PLC0415from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

    federation = federation_in(home)from fedtrain.wire.certificates import certificate_in

    asked = read_request(request)from fedtrain.wire.certificates import certificate_in

    expected = federation.service().clientsfrom fedtrain.wire.certificates import certificate_in

    if asked.client_id not in expected:from fedtrain.wire.certificates import certificate_in

        raise ConfigError(from fedtrain.wire.certificates import certificate_in

            f"{asked.client_id!r} is not among service.clients of "from fedtrain.wire.certificates import certificate_in

            f"{federation.project} ({', '.join(expected)}). The partner asks again "from fedtrain.wire.certificates import certificate_in

            "with one of these names, or you make a new plan."from fedtrain.wire.certificates import certificate_in

        )from fedtrain.wire.certificates import certificate_in

    if not yes:from fedtrain.wire.certificates import certificate_in

        show_text(f"{asked.client_id} says its key is\n  {asked.fingerprint}")from fedtrain.wire.certificates import certificate_in

        typer.confirm("Did you compare it with the partner, by voice?", abort=True)from fedtrain.wire.certificates import certificate_in

    invitation = federation.authority().admit(asked, federation.terms())from fedtrain.wire.certificates import certificate_in

    path = request.with_name(f"{asked.client_id}.invitation")from fedtrain.wire.certificates import certificate_in

    write_atomically(path, invitation.to_bytes())from fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json({"client_id": asked.client_id, "invitation": str(path)})from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(f"Admitted {asked.client_id}. Send it {path}; there is no secret in it.")from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def serve(from fedtrain.wire.certificates import certificate_in

    *,from fedtrain.wire.certificates import certificate_in

    home: Home = DEFAULT,from fedtrain.wire.certificates import certificate_in

    log_format: Annotated[from fedtrain.wire.certificates import certificate_in

        LogFormat, typer.Option(help="Of the events on standard error.")from fedtrain.wire.certificates import certificate_in

    ] = LogFormat.text,from fedtrain.wire.certificates import certificate_in

    export: Annotated[from fedtrain.wire.certificates import certificate_in

        bool, typer.Option("--export", help="Export the finished model ([export]).")from fedtrain.wire.certificates import certificate_in

    ] = False,from fedtrain.wire.certificates import certificate_in

    format: AsFormat = Format.text,from fedtrain.wire.certificates import certificate_in

) -> None:from fedtrain.wire.certificates import certificate_in

    """Run the rounds with the partners, to the end or until you stop it."""from fedtrain.wire.certificates import certificate_in

    from aggregator.serve import serve as serve_federation  # noqa: PLC0415from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

    federation = federation_in(home)from fedtrain.wire.certificates import certificate_in

    log_to_stderr(log_format)from fedtrain.wire.certificates import certificate_in

    # With JSON lines nothing else may stand between them.from fedtrain.wire.certificates import certificate_in

    console = Console(stderr=True, quiet=log_format is LogFormat.json)from fedtrain.wire.certificates import certificate_in

    summary = serve_federation(federation, console=console, exports=export)from fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json(summary)from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(f"Run folder    {summary['run']}", style="bold")from fedtrain.wire.certificates import certificate_in

    if "release" in summary:from fedtrain.wire.certificates import certificate_in

        show_text(f"Release       {summary['release']}", style="bold")from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def demo(from fedtrain.wire.certificates import certificate_in

    *,from fedtrain.wire.certificates import certificate_in

    folder: Annotated[from fedtrain.wire.certificates import certificate_in

        Path | None, typer.Option(help="New; a temporary one by default.")from fedtrain.wire.certificates import certificate_in

    ] = None,from fedtrain.wire.certificates import certificate_in

    rounds: Annotated[int, typer.Option(min=1, help="Of training.")] = 5,from fedtrain.wire.certificates import certificate_in

    epsilon: Annotated[float, typer.Option(min=0.01, help="Of the plan.")] = 8.0,from fedtrain.wire.certificates import certificate_in

    format: AsFormat = Format.text,from fedtrain.wire.certificates import certificate_in

) -> None:from fedtrain.wire.certificates import certificate_in

    """A whole federation on this machine: three partners, mutual TLS, real rounds."""from fedtrain.wire.certificates import certificate_in

    from aggregator.demo import demo as run_demo  # noqa: PLC0415from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

    where = folder or Path(tempfile.mkdtemp(prefix="fedtrain-demo-")) / "demo"from fedtrain.wire.certificates import certificate_in

    facts = run_demo(where.resolve(), num_rounds=rounds, epsilon=epsilon)from fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json(facts)from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(f"Done in {facts['seconds']} s. Everything is in {facts['folder']}.")from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def status(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:from fedtrain.wire.certificates import certificate_in

    """Say who is missing, since when, and when the round closes."""from fedtrain.wire.certificates import certificate_in

    from aggregator.standing import standing  # noqa: PLC0415from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

    found_status = standing(federation_in(home))from fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json(found_status)from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(f"{found_status['run_id']}: {found_status['text']}")from fedtrain.wire.certificates import certificate_in

    show_rounds(found_status)from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def plan(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:from fedtrain.wire.certificates import certificate_in

    """Show the plan in words, as every partner reads it before approving it."""from fedtrain.wire.certificates import certificate_in

    from fedtrain.wire.plan_words import in_words  # noqa: PLC0415from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

    found_plan = federation_in(home).plan()from fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json({"sha256": found_plan.sha256, **found_plan.model_dump(mode="json")})from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(in_words(found_plan))from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

@app.command()from fedtrain.wire.certificates import certificate_in

def rotate(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:from fedtrain.wire.certificates import certificate_in

    """Give the server a new certificate; a running one takes it up by itself."""from fedtrain.wire.certificates import certificate_in

    authority = federation_in(home).authority()from fedtrain.wire.certificates import certificate_in

    authority.rotate_server()from fedtrain.wire.certificates import certificate_in

    ends = certificate_in(authority.server_pair().certificate_pem).not_valid_after_utcfrom fedtrain.wire.certificates import certificate_in

    if format is Format.json:from fedtrain.wire.certificates import certificate_in

        show_json({"server_certificate_ends": f"{ends:%Y-%m-%d}"})from fedtrain.wire.certificates import certificate_in

        returnfrom fedtrain.wire.certificates import certificate_in

    show_text(f"The server has a new certificate, until {ends:%Y-%m-%d}.")from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

from fedtrain.wire.certificates import certificate_in

def show_rounds(found_status: Mapping[str, Any]) -> None:from fedtrain.wire.certificates import certificate_in

    """One line for each round that is remembered."""from fedtrain.wire.certificates import certificate_in

    rows = [from fedtrain.wire.certificates import certificate_in

        {from fedtrain.wire.certificates import certificate_in

            "round": one["round_number"],from fedtrain.wire.certificates import certificate_in

            "stage": one["stage"],from fedtrain.wire.certificates import certificate_in

            "in": ", ".join(one["accepted"]),from fedtrain.wire.certificates import certificate_in

            "missing": ", ".join(m["client"] for m in one["missing"]),from fedtrain.wire.certificates import certificate_in

            "lost": ", ".join(f"{c} ({why})" for c, why in one["lost"].items()),from fedtrain.wire.certificates import certificate_in

        }from fedtrain.wire.certificates import certificate_in

        for one in found_status["rounds"]from fedtrain.wire.certificates import certificate_in

    ]from fedtrain.wire.certificates import certificate_in

    if rows:from fedtrain.wire.certificates import certificate_in

        show_table(rows, title="Rounds")from fedtrain.wire.certificates import certificate_in

    if found_status["round"] is not None:from fedtrain.wire.certificates import certificate_in

        show_text(f"The open round closes {found_status['round']['closes']}.")from fedtrain.wire.certificates import certificate_in

