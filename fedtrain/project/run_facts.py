"""What ran: seed, data, model, runtime and versions, as ``run.json`` keeps them."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import tensorflow as tf

import fedtrain
from fedtrain.core import nests
from fedtrain.data.fingerprint import data_sha256
from fedtrain.project.build import Project
from fedtrain.runtimes.execution import intra_op_threads


def run_facts(project: Project) -> dict[str, Any]:
    """What ``run.json`` says when a run starts."""
    train_set = project.split.train
    return {
        "name": project.config.name,
        "started": datetime.now(UTC).isoformat(),
        "status": "new",
        "seed": project.config.seed,
        "command": shlex.join(["fedtrain", *sys.argv[1:]]),
        "project_dir": str(project.folder.resolve()),
        "data": {
            "name": train_set.name,
            "sensitivity": train_set.sensitivity,
            "num_clients": train_set.num_clients,
            **_row_counts(project),
            "source": project.split.source,
        },
        "served": bool(train_set.info.get("declared")),
        "data_sha256": data_sha256(train_set),
        "model": {
            "name": project.model.name,
            "num_weights": nests.num_weights(project.starting_weights()),
        },
        "runtime": _runtime_facts(project),
        "versions": _versions(),
    }


def _row_counts(project: Project) -> dict[str, int]:
    """Counts of rows, but for those that are private under a privacy promise."""
    counts = {}
    if not project.is_protected:
        sizes = project.split.train.num_examples()
        counts["num_examples"] = int(sizes.sum())
        counts["empty_clients"] = int((sizes == 0).sum())
    if project.shows_test:
        counts["num_test_examples"] = project.split.test.num_examples
    return counts


def _runtime_facts(project: Project) -> dict[str, Any]:
    threading = tf.config.threading
    return {
        "kind": project.config.runtime.kind,
        "intra_op_threads": intra_op_threads(),
        "inter_op_threads": threading.get_inter_op_parallelism_threads(),
        "cpus": os.cpu_count(),
    }


def _versions() -> dict[str, str]:
    return {
        "fedtrain": fedtrain.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
