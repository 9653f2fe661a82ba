"""Commands that keep a federation safe: audit, backup, restore, repair."""

from pathlib import Path
from typing import Annotated

import typer

from aggregator.cli_options import AsFormat, Home
from aggregator.home import DEFAULT, federation_in
from fedtrain.cli.output import Format, show_json, show_table, show_text

audit = typer.Typer(
    help="Whether all is as it was written.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@audit.command()
def heads(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Show the last head of each partner's own log, which it has signed.

    The partner's `fedtrain-client audit verify ID --noted LENGTH:HASH` then shows that
    the log which it keeps is the one that it had. With `--format json` each comes with
    the request in which the partner signed it.
    """
    from aggregator.audit import partner_heads  # noqa: PLC0415

    rows = partner_heads(federation_in(home))
    if format is Format.json:
        show_json(rows)
    elif rows:
        told = [
            {name: row[name] for name in ("partner", "run", "head")} for row in rows
        ]
        show_table(told, title="Partners' logs, as they signed them")
    else:
        show_text("Nobody has sent a head yet.")


@audit.command()
def verify(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Check journal, ledger, run folder and releases; may be run while serving."""
    from aggregator.audit import audit as look  # noqa: PLC0415

    checks = look(federation_in(home))
    if format is Format.json:
        show_json([check._asdict() for check in checks])
    else:
        rows = [
            {"what": c.what, "": "intact" if c.ok else "DAMAGED", "found": c.text}
            for c in checks
        ]
        show_table(rows)
    code = next((check.exit_code for check in checks if not check.ok), 0)
    if code:
        raise typer.Exit(code)


def backup(
    to: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder.")],
    *,
    home: Home = DEFAULT,
    format: AsFormat = Format.text,
) -> None:
    """Copy the federation to a new folder, keys too; serving may go on meanwhile."""
    from aggregator.backup import backup as copy  # noqa: PLC0415

    done = copy(federation_in(home), to)
    if format is Format.json:
        show_json({"folder": str(to), **done})
        return
    show_text(
        f"Wrote {to}: {len(done['files'])} files, {done['journal']['events']} events."
    )
    show_text("It holds the authority's private key: keep it as safe as the original.")


def restore(
    saved: Annotated[Path, typer.Argument(metavar="SRC", help="From `backup`.")],
    *,
    home: Home = DEFAULT,
    only_journal: Annotated[
        bool, typer.Option("--only-journal", help="Into a home that is there.")
    ] = False,
    ledger_from_backup: Annotated[
        bool, typer.Option("--ledger-from-backup", help="Only if it is lost for good.")
    ] = False,
    format: AsFormat = Format.text,
) -> None:
    """Put a backup in place; overwrites nothing, and never rolls the ledger back."""
    from aggregator.backup import restore as put_back  # noqa: PLC0415

    done = put_back(
        saved, home, only_journal=only_journal, ledger_from_backup=ledger_from_backup
    )
    if format is Format.json:
        show_json(done)
        return
    show_text(f"Restored {done['home']} as of {done['made']}.")
    show_text(f"Privacy ledger  {done['ledger']}.")
    show_text("What was spent since stays spent; open rounds are asked for again.")


def repair(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Drop the damaged end of the journal, if only an open round is lost with it."""
    from aggregator.journal_repair import repair as mend  # noqa: PLC0415

    federation = federation_in(home)
    done = mend(federation.journal, federation.service().database)
    if format is Format.json:
        show_json(done._asdict())
        return
    show_text(
        f"Kept {done.kept} events, dropped {done.dropped} of an open round. Its "
        "partners are asked again; the damaged journal was kept aside."
    )
