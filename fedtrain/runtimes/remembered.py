"""What trials found, kept for the next run of the same work on the same machine.

One small JSON file in the user's cache folder (``FEDTRAIN_CACHE_DIR``, or
``XDG_CACHE_HOME/fedtrain``, or ``~/.cache/fedtrain``). It may be deleted at any time:
trials are then made again. It holds shapes and timings, never rows or weights.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, ClientWork
from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.rounds.runtime import Cohort
from fedtrain.runtimes.execution import (
    Execution,
    execution_from,
    intra_op_threads,
    machine,
)

_log = logging.getLogger(__name__)
_MOST_ENTRIES = 500


def key(
    work: ClientWork, message: Broadcast, cohort: Cohort, default: Execution
) -> str:
    """A name for this kind of work, cohort and machine.

    Cohorts of about equal size, with about equally many rows, count as the same.
    """
    rows = sorted(client.examples.num_examples for client in cohort)
    parts = {
        "machine": machine(),
        "default": {**default.as_dict(), "intra_op_threads": intra_op_threads()},
        "message": str(tf.nest.map_structure(tf.TensorSpec.from_tensor, message)),
        "features": _specs(cohort[0].examples.features),
        "batching": repr(work.batching),
        "work": [work.mixes_rows, work.reports_metrics, len(work.mechanisms)],
        "cohort": _magnitude(len(cohort)),
        "rows": [_magnitude(rows[int(q * (len(rows) - 1))]) for q in (0.1, 0.5, 0.9)],
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def recall(name: str) -> Execution | None:
    """What was found for ``name``, if it can be repeated in this process."""
    entry = _entries().get(name)
    try:
        return None if entry is None else execution_from(entry)
    except (ConfigError, TypeError):
        return None


def remember(name: str, execution: Execution) -> None:
    """Keeps what was found; a folder that cannot be written is no error."""
    entries = _entries()
    entries.pop(name, None)
    entries[name] = {**execution.as_dict(), "intra_op_threads": intra_op_threads()}
    newest = dict(list(entries.items())[-_MOST_ENTRIES:])
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(newest, indent=1))
    except OSError as error:
        _log.warning("what trials found could not be kept in %s: %s", path, error)


def _entries() -> dict[str, Any]:
    try:
        entries = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _path() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = os.environ.get("FEDTRAIN_CACHE_DIR") or Path(caches) / "fedtrain"
    return Path(folder) / "executions.json"


def _specs(features: Any) -> str:
    return str(tf.nest.map_structure(lambda a: (a.shape[1:], str(a.dtype)), features))


def _magnitude(size: int) -> int:
    """Powers of the square root of two."""
    return round(2.0 * float(np.log2(max(size, 1))))
