"""``fedtrain-aggregator runs``: what ran, how it went, and how to stop it."""

from typing import Annotated, Any

import typer

from aggregator.cli_options import AsFormat, Home, Yes
from aggregator.home import DEFAULT, Federation, current_run, federation_in
from fedtrain.cli.output import Format, show_json, show_table, show_text
from fedtrain.core.errors import ConfigError

runs = typer.Typer(
    help="What ran, how it went, and how to stop it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@runs.command("list")
def list_runs(*, home: Home = DEFAULT, format: AsFormat = Format.text) -> None:
    """Show the runs of this federation, the newest first."""
    from aggregator.run_files import runs_in  # noqa: PLC0415

    found = runs_in(federation_in(home).runs)
    if format is Format.json:
        show_json(found)
    elif found:
        show_table([_listed(run) for run in found], title="Runs")
    else:
        show_text("No run has begun; `fedtrain-aggregator serve` begins one.")


@runs.command()
def show(
    run_id: Annotated[str, typer.Argument(help="By default the newest.")] = "",
    *,
    home: Home = DEFAULT,
    format: AsFormat = Format.text,
) -> None:
    """Show what was released of a run: its rounds, its scores, its cost."""
    facts = _facts(federation_in(home), run_id)
    if format is Format.json:
        show_json(facts)
        return
    why = f": {facts['error']}" if facts["error"] else ""
    show_text(f"{facts['run_id']}: {facts['status']}{why}")
    # Rounds that were not evaluated have fewer.
    names = list(dict.fromkeys(n for row in facts["history"] for n in row["metrics"]))
    rows = [
        {
            "round": row["rounds_done"],
            **{name: row["metrics"].get(name) for name in names},
            "epsilon": row["spent_epsilon"],
            "seconds": row["seconds"],
        }
        for row in facts["history"]
    ]
    if rows:
        show_table(rows, title="Rounds")
    for release in facts["releases"]:
        show_text(
            f"Release {release['name']} {release['version']}: {release['folder']}, "
            f"release status {release['status']}"
        )


@runs.command()
def stop(
    *,
    home: Home = DEFAULT,
    text: Annotated[
        str, typer.Option(help="What partners are told.")
    ] = "the operator has ended the run",
    resumable: Annotated[
        bool, typer.Option("--resumable", help="Only pause: partners wait.")
    ] = False,
    yes: Yes = False,
    format: AsFormat = Format.text,
) -> None:
    """End the run for good and tell partners; or, with --resumable, only pause it."""
    from aggregator.stopping import stop_run  # noqa: PLC0415

    federation = federation_in(home)
    if not (yes or resumable):
        typer.confirm(
            "The run ends for good: it cannot be resumed, and what it spent stays "
            "spent. End it?",
            abort=True,
        )
    done = stop_run(federation, text, is_final=not resumable)
    if format is Format.json:
        show_json({"run_id": current_run(federation), "text": done})
        return
    show_text(done)


@runs.command()
def again(
    *, home: Home = DEFAULT, yes: Yes = False, format: AsFormat = Format.text
) -> None:
    """Give up the open attempt at a round, so that partners are asked anew.

    For a round that partners cannot answer a second time, as after an old backup was
    restored. Stop `serve` before, start it after.
    """
    from aggregator.backup import give_up_attempts  # noqa: PLC0415

    federation = federation_in(home)
    if not yes:
        typer.confirm(
            "Answers that came in are dropped, and the next ones cost partners epsilon "
            "again. Ask anew?",
            abort=True,
        )
    given_up = give_up_attempts(federation)
    if format is Format.json:
        show_json({"given_up": given_up})
        return
    show_text(
        "Given up; the next `fedtrain-aggregator serve` asks all partners anew."
        if given_up
        else "No round is open."
    )


def _listed(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": run["run_id"],
        "status": run["status"],
        "begun": run["started"][:16].replace("T", " "),
        "rounds": run["rounds_done"],
        "epsilon": run["spent_epsilon"],
        "": run["error"],
    }


def _facts(federation: Federation, run_id: str) -> dict[str, Any]:
    from aggregator.run_files import (  # noqa: PLC0415
        released_history,
        releases_of,
        run_listed,
    )
    from fedtrain.project.run_folder import RunFolder  # noqa: PLC0415

    name = run_id or current_run(federation)
    if name is None:
        raise ConfigError("No run has begun; `fedtrain-aggregator serve` begins one.")
    folder = RunFolder(federation.runs / name)
    if "/" in name or not folder.info.is_file():
        raise ConfigError(
            f"{name} is not in {federation.runs}: `fedtrain-aggregator runs list` "
            "shows what is."
        )
    is_protected = federation.plan().privacy is not None
    history = released_history(folder, is_protected=is_protected)
    return {
        **run_listed(folder.path),
        "history": history,
        "releases": releases_of(folder),
    }
