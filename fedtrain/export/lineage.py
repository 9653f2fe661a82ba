"""Where a released model comes from: hashes of what made it, and what exported it."""

import importlib.metadata
import platform
from pathlib import Path

import numpy as np
import tensorflow as tf

import fedtrain
from fedtrain.export.record import Lineage, file_sha256
from fedtrain.export.source import Source

_PACKAGES = ("ai-edge-litert", "tensorflow-serving-api", "keras")


def lineage_of(source: Source) -> Lineage:
    """The lineage of a run's model."""
    folder = source.run.folder
    info = folder.read_json(folder.info)
    privacy = source.run.privacy_report
    # Of private rows it would confirm a guess at all of them.
    is_public = source.run.project().split.train.sensitivity == "public"
    return Lineage(
        run_id=folder.path.resolve().name,
        project_file_sha256=file_sha256(folder.config),
        weights_sha256=file_sha256(folder.weights),
        data_sha256=info.get("data_sha256") if is_public else None,
        schema_sha256=source.schema.hash if source.schema else None,
        privacy_report_sha256=_hash_of(folder.privacy_report),
        ledger_hash=privacy["ledger_hash"] if privacy else None,
        trained_with={k: str(v) for k, v in info.get("versions", {}).items()},
        exported_with=_versions(),
    )


def _versions() -> dict[str, str]:
    found = {
        "fedtrain": fedtrain.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _hash_of(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
