"""What may be shown of a run's folder: what was released, and nothing else.

``metrics.jsonl`` is written without what the guarantee withholds. Of a protected run
the page shows only scores on public test rows from it, those that partners were
charged for, and the epsilon spent.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtrain.project.run_folder import RunFolder

_RELEASED = ("test_", "held_out_")
_RECORD = "release.json"


def run_listed(path: Path) -> dict[str, Any]:
    """One run of the runs' folder in a line: its state, and when it began."""
    folder = RunFolder(path)
    info = _json_of(folder.info)
    history = released_history(folder, is_protected="ledger" in info)
    last = history[-1] if history else {}
    return {
        "run_id": path.name,
        "status": str(info.get("status", "unknown")),
        "started": str(info.get("started", "")),
        "updated": str(info.get("updated", "")),
        "rounds_done": last.get("rounds_done", 0),
        "spent_epsilon": last.get("spent_epsilon"),
        "error": str(info.get("error", "")),
    }


def runs_in(runs: Path) -> list[dict[str, Any]]:
    """All runs below ``runs``, the newest first."""
    found = [path.parent for path in runs.glob("*/run.json")]
    listed = [run_listed(path) for path in found]
    return sorted(listed, key=lambda run: run["started"], reverse=True)


def released_history(folder: RunFolder, *, is_protected: bool) -> list[dict[str, Any]]:
    """A line for each round: its scores, its length, and what was spent by then."""
    rows = []
    for record in _records(folder.metrics):
        metrics = dict(record.get("metrics") or {})
        if is_protected:
            metrics = {
                name: value
                for name, value in metrics.items()
                if name.startswith(_RELEASED)
            }
        rows.append(
            {
                "round_number": record["round_number"],
                "rounds_done": record["round_number"] + 1,
                "metrics": metrics,
                "seconds": record.get("seconds"),
                "lost_clients": record.get("lost_clients"),
                "spent_epsilon": record.get("spent_epsilon"),
            }
        )
    return rows


def releases_of(folder: RunFolder) -> list[dict[str, Any]]:
    """What was exported to the run's own folder, by its signed records."""
    found = []
    for path in sorted((folder.path / "export").rglob(_RECORD)):
        record = _json_of(path)
        found.append(
            {
                "name": str(record.get("name", path.parent.name)),
                "version": record.get("version"),
                "created": str(record.get("created", "")),
                "status": str(record.get("release_status", "")),
                "folder": str(path.parent.relative_to(folder.path)),
            }
        )
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        *lines, _torn = path.read_text("utf-8").split("\n")
    except OSError:
        return []
    return [record for record in map(_parsed, lines) if "round_number" in record]


def _json_of(path: Path) -> Mapping[str, Any]:
    try:
        return _parsed(path.read_text("utf-8"))
    except OSError:
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
