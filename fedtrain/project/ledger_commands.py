"""What ``fedtrain ledger`` does: show, verify and repair the ledger of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.privacy import events, ledger_repair
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.build import Project
from fedtrain.project.load import load_run
from fedtrain.project.run_folder import existing_run
from fedtrain.project.run_privacy import run_privacy_of
from fedtrain.rounds.checkpoint_file import ledger_heads


def show_ledger(source: str | Path) -> dict[str, Any]:
    """The entries' number, the head, and what was spent, by kind of event.

    Args:
      source: A ledger's file, a run's folder, or ``"latest"``.

    Raises:
      LedgerError: If the ledger is damaged.
    """
    path = ledger_file(source)
    ledger = Ledger(path)
    spending = ledger.spending
    by_client = spending.num_by_client()
    return {
        "ledger": str(path),
        **ledger.head(),
        "clients": len(by_client),
        "largest": {
            unit: [events.to_json(events.counted(e)) for e in spending.largest(unit)]
            for unit in ("example", "entity", "client")
        },
    }


def verify_ledger(source: str | Path) -> dict[str, Any]:
    """Checks every entry, and that nothing is gone that the run remembers.

    Raises:
      LedgerError: If the ledger is damaged, or shorter than the run remembers.
    """
    path = ledger_file(source)
    ledger = Ledger(path)
    remembered = remembered_head(source)
    if remembered is not None:
        ledger.expect(remembered)
    return {
        "ledger": str(path),
        "intact": True,
        "compared_with_run": remembered is not None,
        **ledger.head(),
    }


def repair_ledger(source: str | Path) -> dict[str, Any]:
    """Charges the worst case for what is damaged or missing.

    Args:
      source: Best a run's folder: its checkpoint says how long the ledger was, its
        project what a round costs.

    Raises:
      LedgerError: If nothing is damaged or missing.
    """
    path = ledger_file(source)
    known: dict[str, Any] = {"expected_head": remembered_head(source)}
    if not path_is_ledger(source):
        known |= _worst_round(load_run(source).project())
    done = ledger_repair.repair_ledger(path, **known)
    return {
        "ledger": str(path),
        "entries_kept": done.kept,
        "entries_charged_anew": done.missing,
        "damaged_file": None if done.saved_as is None else str(done.saved_as),
        "unlimited": done.is_unlimited,
    }


def ledger_file(source: str | Path) -> Path:
    """The ledger's file, from itself or from a run."""
    if path_is_ledger(source):
        return Path(source)
    folder = existing_run(source)
    facts = folder.read_json(folder.info)
    if facts.get("ledger") is None:
        raise ConfigError(f"{folder.path} has no ledger: it ran without [privacy].")
    # That of a run on public data lies in its folder, wherever that was moved to.
    is_public = facts["data"]["sensitivity"] == "public"
    return folder.ledger if is_public else Path(facts["ledger"])


def path_is_ledger(source: str | Path) -> bool:
    """Whether ``source`` names a ledger's file, not a run."""
    return Path(source).suffix == ".jsonl"


def remembered_head(source: str | Path) -> Mapping[str, Any] | None:
    """The ledger's head in the run's newest checkpoint; None where there is none."""
    if path_is_ledger(source):
        return None
    return next(ledger_heads(existing_run(source).checkpoints), None)


def _worst_round(project: Project) -> dict[str, Any]:
    privacy = run_privacy_of(project, Ledger(Path("no-such-folder/ledger.jsonl")), "-")
    if privacy is None:
        return {}
    return {"worst_event": privacy.round_event(), "unit": privacy.plan.unit}
