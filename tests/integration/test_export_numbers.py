"""A model that predicts a number, exported: judged by its errors."""

from pathlib import Path

import numpy as np
import pytest

from fedtrain.cli.main import run as run_command
from fedtrain.export.export_run import export_run
from fedtrain.export.record import read_record

MODEL = """
import keras

def model():
    layers = [keras.layers.Input([2]), keras.layers.Dense(4, "relu")]
    network = keras.Sequential([*layers, keras.layers.Dense(1)])
    network.compile(loss="mse")
    return network
"""
PROJECT = """
name = "prices"
seed = 1
[data]
path = "rows.csv"
label = "price"
partition = "iid"
num_clients = 3
test_fraction = 0.25
sensitivity = "public"
[model]
path = "network.py"
[rounds]
num_rounds = 3
[client]
learning_rate = 0.05
batch_size = 16
local_epochs = 1
[evaluation]
baselines = false
[tracking]
tensorboard = false
html_report = false
[export]
to = ["edge"]
edge_variants = ["float16", "int8"]
max_error_increase = 5.0
min_slice_rows = 1
max_slice_drop = 1e6
slice_columns = ["rooms"]
accept_no_privacy = true
"""


def test_errors_slices_and_agreement_of_a_predicted_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    random = np.random.default_rng(0)
    lines = ["rooms,size,price"]
    for rooms, size in zip(
        random.integers(1, 5, 400), random.normal(size=400), strict=True
    ):
        lines.append(f"{rooms},{size:.3f},{rooms + size + random.normal() / 9:.3f}")
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "network.py").write_text(MODEL)
    (tmp_path / "federation.toml").write_text(PROJECT)
    assert run_command(["simulate", "federation.toml"]) == 0
    capsys.readouterr()
    assert run_command(["export", "latest"]) == 0
    assert "mean squared error" in capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    record = read_record(run / "export" / "1")
    own = record.source_scores
    assert set(own) == {"mean_squared_error", "mean_absolute_error"}
    half = {v.name: v for v in record.variants}["float16"]
    rise = 100.0 * (half.scores["mean_squared_error"] / own["mean_squared_error"] - 1)
    assert half.drop_points["mean_squared_error"] == pytest.approx(rise)
    assert half.agreement == 1.0
    assert half.worst_slice is not None
    assert half.worst_slice.kind in ("rooms", "client")
    released = export_run(run, max_error_increase=1e9)
    assert read_record(released.folder).bounds.max_error_increase == 1e9
