"""Repair of a damaged or shortened ledger: what is missing is charged at its worst."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtrain.core.chain import (
    GENESIS,
    append_lines,
    checked_entry,
    locked,
    sealed,
)
from fedtrain.core.errors import LedgerError
from fedtrain.core.files import sync_folder
from fedtrain.core.mechanism import Unit
from fedtrain.privacy import events
from fedtrain.privacy.ledger import Charge, add_hash, charge_from_json


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair did.

    Attributes:
      kept: Entries that were intact and stay.
      missing: Entries that were charged anew, at the worst case, to every client.
      saved_as: The damaged file, kept aside; None where there was none.
      is_unlimited: Whether nothing was known of the missing entries, so that the data
        counts as no longer private.
    """

    kept: int
    missing: int
    saved_as: Path | None
    is_unlimited: bool


def repair_ledger(
    path: Path | str,
    *,
    expected_head: Mapping[str, Any] | None = None,
    worst_event: Any = None,
    unit: Unit = "example",
) -> Repair:
    """Keeps the intact beginning and charges the worst case for the rest.

    Every missing entry is charged to all clients with every event that any readable
    entry of the file (or ``worst_event``) has at its most, for the unit that the
    readable entries are for. Where they are for several, it is charged for rows, and
    for the other units the data then counts as no longer private.

    Args:
      path: The ledger.
      expected_head: What a checkpoint or report remembers of it.
      worst_event: What one round of the plan spends, for a ledger that says nothing.
      unit: Whose privacy ``worst_event`` speaks of.

    Raises:
      LedgerError: If nothing is damaged or missing, or the ledger cannot be locked.
    """
    path = Path(path)
    with locked(path):
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        if lines[-1] == b"":
            lines.pop()
        intact = _intact_beginning(lines)
        hashes = _hashes_of(intact)
        missing = _num_missing(lines, intact, expected_head)
        if not missing:
            raise LedgerError(f"{path}: nothing is damaged or missing.")
        charge = _worst_charge(lines, missing, worst_event, unit)
        previous = intact[-1]["hash"] if intact else GENESIS
        entry = {**charge.to_json(), "covers_length": len(hashes) + missing}
        saved_as = _replace(path, [*intact, sealed(entry, previous)])
    return Repair(
        kept=len(intact),
        missing=missing,
        saved_as=saved_as,
        is_unlimited=events.NonPrivate() in charge.counts,
    )


def _intact_beginning(lines: list[bytes]) -> list[dict[str, Any]]:
    intact: list[dict[str, Any]] = []
    for line in lines:
        entry = checked_entry(line, intact[-1]["hash"] if intact else GENESIS)
        if entry is None:
            break
        intact.append(entry)
    return intact


def _hashes_of(entries: list[dict[str, Any]]) -> list[str]:
    hashes: list[str] = []
    for entry in entries:
        add_hash(hashes, entry)
    return hashes


def _num_missing(
    lines: list[bytes],
    intact: list[dict[str, Any]],
    expected_head: Mapping[str, Any] | None,
) -> int:
    """How many entries are gone, those that a lost repair stood for among them."""
    hashes = _hashes_of(intact)
    # An unreadable line counts as one entry, under a hash that nobody looks at.
    lost = [checked_entry(line, None) or {"hash": ""} for line in lines[len(intact) :]]
    expected = int(expected_head["length"]) if expected_head else 0
    missing = max(len(_hashes_of([*intact, *lost])), expected) - len(hashes)
    covered = max((int(entry.get("covers_length", 0)) for entry in intact), default=0)
    if missing == 0 and expected_head and expected > covered:
        replaced = hashes[expected - 1] != expected_head["hash"]
        return expected if replaced else 0
    return missing


def _worst_charge(
    lines: list[bytes], missing: int, worst_event: Any, unit: Unit
) -> Charge:
    readable = [checked_entry(line, None) for line in lines]
    charges = [charge_from_json(entry) for entry in readable if entry]
    most: Counter[Any] = Counter()
    for counts in [charge.counts for charge in charges] + (
        [events.counted(worst_event)] if worst_event is not None else []
    ):
        most |= Counter(counts)
    if not most:
        most = Counter([events.NonPrivate()])
    units: set[Unit] = {charge.unit for charge in charges} or {unit}
    return Charge(
        run="repair",
        round_number=len(lines),
        attempt=0,
        input_hash=os.urandom(8).hex(),
        unit=_worst_unit(units),
        counts={leaf: num * missing for leaf, num in most.items()},
        clients=None,
        note=f"repair: worst case for {missing} missing entries",
    )


def _worst_unit(units: set[Unit]) -> Unit:
    """Of the missing entries; a charge for rows counts as not private for the rest."""
    return next(iter(units)) if len(units) == 1 else "example"


def _replace(path: Path, entries: list[dict[str, Any]]) -> Path | None:
    """Puts ``entries`` in the file's place in one step, and keeps the old file."""
    repaired = path.with_name(f"{path.name}.repaired")
    repaired.unlink(missing_ok=True)
    append_lines(repaired, entries)
    aside = _keep_copy(path) if path.exists() else None
    repaired.replace(path)
    sync_folder(path.parent)
    return aside


def _keep_copy(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    aside.hardlink_to(path)
    return aside
