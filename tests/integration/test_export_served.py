"""A served run, exported: its rows are with partners, its noise is one for release."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtrain.core.errors import CheckpointError, ConfigError
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from fedtrain.export.export_run import export_run
from fedtrain.export.release import verify_release
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.deployed import deployed
from fedtrain.project.read import checked_config
from fedtrain.project.run import start_run
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.run_privacy import (
    ledger_of,
    run_privacy_of,
    write_privacy_report,
)
from fedtrain.project.weights_file import save_weights

PROJECT: dict[str, Any] = {
    "name": "credit",
    "seed": 3,
    "data": {"path": "rows.csv", "schema_path": "schema.json"},
    "model": {"name": "dense_classifier"},
    "rounds": {"num_rounds": 2},
    "client": {
        "learning_rate": 0.1,
        "sampling_rate": 0.25,
        "local_steps": 3,
        "expected_batch_size": 10.0,
    },
    "privacy": {
        "unit": "example",
        "trust": "local",
        "neighboring_relation": "add_or_remove_one",
        "delta": 1e-3,
        "sampling": "poisson",
        "clipping_norm": 1.0,
        "noise_multiplier": 1.0,
    },
    "service": {"clients": ["bank-a", "bank-b"], "rows_per_client": 40},
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """What a federation leaves behind: all of it but the training itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    frame = pd.DataFrame(
        np.random.default_rng(7).normal(size=(60, 2)), columns=["a", "b"]
    )
    frame["label"] = np.where(frame["a"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "public.csv", index=False)
    schema = infer_schema(table_of(frame), label="label").with_source("declared")
    schema.save(tmp_path / "schema.json")
    project = deployed(checked_config(PROJECT, file="test"), folder=tmp_path)
    folder = start_run(project)
    privacy = run_privacy_of(project, Ledger(ledger_of(project, folder)), "run")
    assert privacy is not None
    for number in range(2):
        privacy.before_round(number, ["bank-a", "bank-b"], f"{number}")
    save_weights(folder.weights, project.starting_weights())
    folder.metrics.touch()
    report = write_privacy_report(project, folder, privacy)
    folder.write_json(folder.summary, {"privacy_statement": report["statement"]})
    return folder


def test_release_of_partners_noise_is_a_release(run: RunFolder) -> None:
    bounds = {"max_slice_drop": 100.0, "max_accuracy_drop": 100.0}
    asked: dict[str, Any] = {"to": ["edge"], "edge_variants": ["float32"], **bounds}
    released = export_run(run.path, public_rows="public.csv", **asked)
    found = verify_release(released.folder)
    assert (found.record.release_status, found.exit_code) == ("release", 0)
    report = json.loads((released.folder / "privacy_report.json").read_text())
    assert found.record.privacy_statement == report["statement"]
    assert found.record.charges == []
    # The run knows one row that was made up; a hash of it would say nothing.
    assert found.record.lineage.data_sha256 is None


@pytest.mark.parametrize("calibration", ["private_query", "raw_private"])
def test_rows_that_are_with_partners_calibrate_nothing(
    run: RunFolder, calibration: str
) -> None:
    asked = {"calibration_epsilon": 1.0, "accept_raw_calibration": True}
    with pytest.raises(ConfigError, match="are with its partners"):
        export_run(
            run.path,
            to=["edge"],
            public_rows="public.csv",
            calibration=calibration,
            **asked,
        )


def test_weights_that_the_report_does_not_speak_of_are_refused(run: RunFolder) -> None:
    run.weights.write_bytes(run.weights.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=r"weights\.npz is not the file"):
        export_run(run.path, to=["edge"], public_rows="public.csv")
