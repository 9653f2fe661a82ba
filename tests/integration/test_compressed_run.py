"""Fine-tuning rounds of a run: planned, charged, resumed, kept, and exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.cli.main import run as run_command
from fedtrain.compression.size import num_distinct, sparsity
from fedtrain.export.export_run import export_run
from fedtrain.project.load import load_run
from fedtrain.project.plan_project import plan
from fedtrain.rounds.checkpoint import CheckpointStore

SMALL = [
    "data.num_clients=4",
    "rounds.num_rounds=2",
    "evaluation.baselines=false",
    "tracking.tensorboard=false",
    "tracking.html_report=false",
]
COMPRESSION = "compression={fine_tuning_rounds=2, prune_sparsity=0.8, num_clusters=8}"
Simulate = Callable[..., Path]


@pytest.fixture
def simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulate:
    """Trains the embedded example; gives the newest run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*settings: str, expect: int = 0) -> Path:
        words = [word for key in [*SMALL, *settings] for word in ("-s", key)]
        assert run_command(["simulate", *words]) == expect
        return load_run("latest").folder.path

    return run


def values(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def same_bits(first: Path, second: Path, name: str) -> bool:
    with np.load(first / name) as one, np.load(second / name) as other:
        return all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_tuning_rounds_are_planned_charged_and_resumed_to_the_bit(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, as_many = (
        plan(None, [*SMALL, change]) for change in (COMPRESSION, "rounds.num_rounds=4")
    )
    assert planned["rows"] == as_many["rows"]
    assert "2 of the rounds for fine-tuning" in planned["title"]
    whole = simulate(COMPRESSION)
    report = values(whole / "privacy_report.json")
    assert report["rounds_planned"] == report["rounds_done"] == 4
    assert 7.9 < report["epsilon"] <= 8.0

    with monkeypatch.context() as patch:  # at the border, and then beyond it
        _stop_after(patch, 2)
        run = simulate(COMPRESSION, expect=130)
    assert not (run / "weights.npz").is_file()
    resume = ["simulate", "--resume", str(run)]
    with monkeypatch.context() as patch:
        _stop_after(patch, 3)
        assert run_command(resume) == 130
    assert (run / "weights.npz").is_file()
    assert run_command(resume) == 0
    for name in ("weights.npz", "compressed_weights.npz"):
        assert same_bits(whole, run, name)
    assert values(run / "privacy_report.json")["epsilon"] == report["epsilon"]


def test_both_weights_are_kept_and_exported(simulate: Simulate) -> None:
    run = simulate(COMPRESSION, "rounds.num_rounds=8")
    loaded = load_run(run)
    trained, compressed = loaded.weights, loaded.compressed_weights
    assert compressed is not None
    kernels = [name for name in compressed if name.endswith("kernel")]
    assert kernels
    for name in kernels:
        assert sparsity(compressed[name]) == pytest.approx(0.8, abs=0.01)
        assert num_distinct(compressed[name]) <= 8
        assert sparsity(trained[name]) < 0.5
    found = values(run / "summary.json")["compressed"]
    assert found["fine_tuning_rounds"] == 2
    assert found["test"]["accuracy"] > 0.3

    asked = ["float32", "compressed_dynamic_int8", "compressed_int8", "int16x8"]
    release = export_run(
        run,
        to=["edge"],
        edge_variants=asked,
        max_accuracy_drop=60.0,
        max_slice_drop=100.0,
    ).record
    variants = {variant.name: variant for variant in release.variants}
    assert release.not_made == {}
    assert set(variants) == set(asked)
    for name in ("compressed_dynamic_int8", "compressed_int8"):
        accuracy = variants[name].scores["accuracy"]
        assert accuracy == pytest.approx(found["test"]["accuracy"], abs=0.02)
        assert variants[name].gzip_bytes < variants["float32"].gzip_bytes / 2
    assert variants["int16x8"].drop_points["accuracy"] <= 0.5
    assert variants["int16x8"].calibration is not None


def _stop_after(patch: pytest.MonkeyPatch, last_saved: int) -> None:
    """Interrupts when the checkpoint of that many rounds is on disk."""
    save = CheckpointStore.save

    def interrupted(self: CheckpointStore, checkpoint: Any) -> Path:
        path = save(self, checkpoint)
        if checkpoint.round_number == last_saved:
            raise KeyboardInterrupt
        return path

    patch.setattr(CheckpointStore, "save", interrupted)
