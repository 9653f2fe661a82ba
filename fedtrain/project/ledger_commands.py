"""What ``fedtrain ledger`` does: show, verify and repair the ledger of a run."""

from collections import Counter
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.privacy import events
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.ledger_repair import repair_ledger
from fedtrain.project.build import build
from fedtrain.project.load import load_run
from fedtrain.project.run_privacy import run_privacy_of
from fedtrain.rounds.checkpoint import CheckpointStore


def show_ledger(source: str | Path) -> dict[str, Any]:
    """Entries by run, and the head, of the ledger at ``source`` (a file or a run)."""
    path = ledger_file(source)
    ledger = Ledger(path)
    return {"ledger": str(path), **ledger.head(), "events": _events(ledger)}


def verify_ledger(source: str | Path) -> dict[str, Any]:
    """Checks every entry, and what the run's newest checkpoint remembers.

    Raises:
      LedgerError: If the ledger is damaged or shorter than a checkpoint remembers.
    """
    path = ledger_file(source)
    ledger = Ledger(path)
    remembered = remembered_head(source)
    if remembered is not None:
        ledger.expect(remembered)
    return {"ledger": str(path), "intact": True, **ledger.head()}
