"""The ``fedtrain-client`` command: what a partner does."""

import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clients import audit
from clients.agent import Agent, Event
from clients.checking import dry_run
from clients.home import Home, default_home
from clients.local import local_rows
from clients.pins import check_names_all, keys_of_partners, pin, words_of
from clients.policy import Facts, Policy, policy_for, read_policy, write_policy
from clients.transport import Transport, caller_of
from fedtrain.cli.output import Format, note, show_json, show_table, show_text
from fedtrain.cli.program import program, run_program
from fedtrain.core.errors import ConfigError, PolicyError
from fedtrain.core.files import write_atomically
from fedtrain.project.agreed_session import is_regional
from fedtrain.wire.acceptance import accept
from fedtrain.wire.certificates import certificate_in
from fedtrain.wire.enrolment import EnrolmentRequest, Invitation, read_invitation
from fedtrain.wire.identity import new_keys
from fedtrain.wire.plan_words import in_words

app = program(
    "fedtrain-client", help="The partner's side of a federation: your rows stay here."
)
policy_app = typer.Typer(help="What may leave this machine.", no_args_is_help=True)
audit_app = typer.Typer(help="What has left this machine.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")
app.add_typer(audit_app, name="audit")

ClientId = Annotated[str, typer.Argument(metavar="ID", help="Your name, as agreed.")]
InvitationFile = Annotated[
    Path, typer.Argument(metavar="INVITATION", help="The file from the operator.")
]
HomeFolder = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="FEDTRAIN_CLIENT_HOME",
        help="Your keys, policy and log. By default $FEDTRAIN_STATE_DIR/clients/ID.",
    ),
]
Data = Annotated[str, typer.Option("--data", help="Your rows: a file or a URL.")]
_INTERRUPTED = "Ended here. Start it again to go on: no answer is lost or sent twice."
_LEFT_SESSION = (
    "Ended here. Start it again to go on. A round of secure aggregation that was under "
    "way goes on without you; what you paid for it stays spent."
)
AsFormat = Annotated[Format, typer.Option("--format", help="How to print the result.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    # A supervisor's SIGTERM ends it as Ctrl-C does; what is half done is done again.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run_program(app, "fedtrain-client", given))


@app.command()
def request(
    client_id: ClientId,
    *,
    home: HomeFolder = None,
    output: Annotated[
        Path | None, typer.Option(help="The request's file; ID.request by default.")
    ] = None,
    format: AsFormat = Format.text,
) -> None:
    """Make your keys, which stay here, and a request to hand to the operator."""
    keys = new_keys(_home(client_id, home).path)
    asked = EnrolmentRequest.of(client_id, keys)
    path = output or Path(f"{client_id}.request")
    write_atomically(path, asked.to_bytes())
    if format is Format.json:
        show_json({"request": str(path), "fingerprint": asked.fingerprint})
        return
    show_text(f"Wrote {path}; there is no secret in it. Send it to the operator.")
    show_text(f"Your key      {asked.fingerprint}")
    show_text("              (the operator compares these words with you by phone)")


@app.command()
def review(
    invitation: InvitationFile,
    *,
    home: HomeFolder = None,
    format: AsFormat = Format.text,
) -> None:
    """Read the plan in words: task, epsilon, what leaves, to whom."""
    invited, own = _invited(invitation, home)
    plan = invited.parsed_plan()
    policy = read_policy(own.policy_path)
    against = _against(policy, invited)
    if format is Format.json:
        show_json(
            {
                "plan": plan.model_dump(mode="json"),
                "plan_sha256": plan.sha256,
                "operator_fingerprint": invited.fingerprint,
                "partner_fingerprints": {
                    name: words_of(key) for name, key in _keys_of(invited).items()
                },
                "address": invited.address,
                "demo": invited.demo,
                "approved": policy is not None and policy.approves(plan),
                "violations": against,
            }
        )
        return
    show_text(in_words(plan))
    show_text(f"Operator's key  {invited.fingerprint}  (compare it by phone)")
    show_text(f"Aggregator      {invited.address}; only you call it, never it you")
    for name, key in _keys_of(invited).items():
        show_text(f"Key of {name}  {words_of(key)}  (compare it by phone)")
    if invited.demo:
        show_text("A DEMONSTRATION: the operator made your keys.", style="yellow")
    for clause in against:
        show_text(f"Your policy     {clause}", style="yellow")
    if policy is not None and policy.approves(plan):
        show_text("You have approved this plan.")


@app.command()
def approve(
    invitation: InvitationFile,
    *,
    home: HomeFolder = None,
    max_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Of your first policy; the plan's by default. inf: no bound."
        ),
    ] = None,
    allow_central: Annotated[
        bool,
        typer.Option(
            "--allow-central", help="First policy: the operator may see exact sums."
        ),
    ] = False,
    allow_exact_metrics: Annotated[
        bool,
        typer.Option(
            "--allow-exact-metrics", help="First policy: metrics may leave unprotected."
        ),
    ] = False,
    format: AsFormat = Format.text,
) -> None:
    """Write the plan's hash into your policy; the first time, write the policy too."""
    invited, own = _invited(invitation, home)
    plan = invited.parsed_plan()
    policy = read_policy(own.policy_path)
    if policy is None:
        policy = policy_for(
            plan,
            max_epsilon=max_epsilon,
            allow_central=allow_central,
            allow_exact_metrics=allow_exact_metrics,
        )
        write_policy(own.policy_path, policy)
    elif max_epsilon is not None or allow_central or allow_exact_metrics:
        raise PolicyError(
            f"There is a policy already: change {own.policy_path} with an editor. A "
            "command that is run for one plan does not loosen it for all."
        )
    accept(invited, own.path)
    policy.check(plan, Facts(is_demo=invited.demo))
    check_names_all(invited)
    pin(own.pins_path, invited)
    write_policy(own.policy_path, policy.approving(plan))
    facts = {"approved": plan.sha256, "policy": str(own.policy_path)}
    if format is Format.json:
        show_json(facts)
        return
    show_text(f"Approved plan {plan.sha256} in {own.policy_path}.")
    for name, key in _keys_of(invited).items():
        show_text(f"Pinned key    {name}: {words_of(key)}")
    show_text(
        "Next          `fedtrain-client check`, then `fedtrain-client join`. To take "
        "the approval back, take the hash out of the file."
    )


@app.command()
def check(
    invitation: InvitationFile,
    *,
    data: Data,
    home: HomeFolder = None,
    format: AsFormat = Format.text,
) -> None:
    """Try all of it before a real run: certificate, policy, rows, one local round."""
    invited, own = _invited_with_rows(invitation, home)
    rows = dry_run(invited, own, local_rows(data, own, tell=_silent))
    if format is Format.json:
        show_json(rows)
        return
    show_table(rows, title="Nothing was sent, and nothing was charged")


@app.command()
def join(
    invitation: InvitationFile,
    *,
    data: Data,
    home: HomeFolder = None,
    format: AsFormat = Format.text,
) -> None:
    """Take part until the run is finished. Without an approval it waits for one."""
    invited, own = _invited_with_rows(invitation, home)
    tell = _json_line if format is Format.json else _sentence
    local = local_rows(data, own, tell=tell)
    with own.alone():
        accept(invited, own.path)
        with Transport(caller_of(invited, own)) as calls:
            try:
                Agent(calls, own, invited, local).run()
            except KeyboardInterrupt:
                is_secure = invited.parsed_plan().secure_aggregation
                text = _LEFT_SESSION if is_secure else _INTERRUPTED
                tell(Event("interrupted", text, {}))
                raise typer.Exit(130) from None


@app.command()
def renew(
    invitation: InvitationFile,
    *,
    home: HomeFolder = None,
    format: AsFormat = Format.text,
) -> None:
    """Get a new certificate now. ``join`` does so by itself, in time."""
    invited, own = _invited(invitation, home)
    accept(invited, own.path)
    with Transport(caller_of(invited, own)) as calls:
        own.renew(calls.renew, invited, now=datetime.now(UTC))
    ends = certificate_in(own.pair().certificate_pem).not_valid_after_utc
    if format is Format.json:
        show_json({"valid_until": ends.isoformat()})
        return
    show_text(f"The certificate is good until {ends:%Y-%m-%d %H:%M} UTC.")


@policy_app.command("show")
def show_policy(
    client_id: ClientId, *, home: HomeFolder = None, format: AsFormat = Format.text
) -> None:
    """Show the clauses, and which plans are approved."""
    path = _home(client_id, home).policy_path
    policy = read_policy(path)
    if policy is None:
        raise ConfigError(
            f"{path} does not exist: nothing is approved. `fedtrain-client approve` "
            "writes a first one."
        )
    if format is Format.json:
        show_json({"policy": str(path), **policy.model_dump(mode="json")})
        return
    show_text(path.read_text("utf-8"))


@audit_app.command("verify")
def verify_audit(
    client_id: ClientId,
    *,
    home: HomeFolder = None,
    noted: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH:HASH", help="A head that the operator has received."
        ),
    ] = None,
    format: AsFormat = Format.text,
) -> None:
    """Check that no entry of the log was changed, taken out or put in."""
    head = None if noted is None else _head_in(noted)
    found = audit.verify(_home(client_id, home).audit_path, head)
    if format is Format.json:
        show_json(found)
        return
    show_text(f"{found['log']}: {found['length']} entries, as they were written.")
    show_text(f"Last          {found['hash']}")


@audit_app.command("show")
def show_audit(
    client_id: ClientId, *, home: HomeFolder = None, format: AsFormat = Format.text
) -> None:
    """Show what left: when, for which round, how many bytes, epsilon so far."""
    entries = audit.entries(_home(client_id, home).audit_path)
    if format is Format.json:
        show_json(entries)
        return
    show_table([_row(entry) for entry in entries], title="What left")


def _home(client_id: str, folder: Path | None) -> Home:
    return Home(folder or default_home(client_id), client_id)


def _invited(path: Path, folder: Path | None) -> tuple[Invitation, Home]:
    invited = read_invitation(path)
    return invited, _home(invited.client_id, folder)


def _invited_with_rows(path: Path, folder: Path | None) -> tuple[Invitation, Home]:
    invited, own = _invited(path, folder)
    if is_regional(invited.parsed_plan(), invited.client_id):
        raise ConfigError(
            f"{invited.client_id} is a regional aggregator: it has no rows, and "
            "contributes the sum of its region by `fedtrain-aggregator region serve`."
        )
    return invited, own


def _keys_of(invited: Invitation) -> dict[str, str]:
    plan = invited.parsed_plan()
    return keys_of_partners(invited.roster, plan=plan, client_id=invited.client_id)


def _head_in(noted: str) -> audit.Head:
    length, _, hash_ = noted.partition(":")
    if not (length.isascii() and length.isdigit()):
        raise ConfigError(f"--noted must be LENGTH:HASH, got {noted!r}.")
    return audit.Head(int(length), hash_)


def _against(policy: Policy | None, invited: Invitation) -> list[str]:
    if policy is None:
        return []
    return policy.violations(invited.parsed_plan(), Facts(is_demo=invited.demo))


def _sentence(event: Event) -> None:
    now = datetime.now().astimezone()
    note(f"{now:%Y-%m-%d %H:%M:%S}  {event.text}")


def _json_line(event: Event) -> None:
    line = {"event": event.what, "text": event.text, **event.facts}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _silent(event: Event) -> None:
    del event


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    spent = entry.get("spent") or {}
    names = ("when", "what", "run", "round", "kind", "bytes")
    return {name: entry.get(name) for name in names} | {
        "epsilon so far": spent.get("epsilon"),
        "unit": spent.get("unit"),
        "delta": spent.get("delta"),
    }
