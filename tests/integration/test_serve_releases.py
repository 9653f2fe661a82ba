"""From a run to versions that a server loads, all from the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.cli.main import run as run_command
from fedtrain.export.record import read_record
from fedtrain.export.serving_files import MODELS, read_models

pytest.importorskip("onnxruntime")

PROJECT = """
name = "rows"
seed = 1
[data]
path = "rows.csv"
label = "outcome"
partition = "iid"
num_clients = 3
test_fraction = 0.25
sensitivity = "public"
[model]
name = "dense_classifier"
[rounds]
num_rounds = 2
[client]
learning_rate = 0.5
batch_size = 16
local_epochs = 1
[evaluation]
baselines = false
[tracking]
tensorboard = false
html_report = false
[export]
to = ["server", "onnx"]
server_variants = ["float32", "bfloat16"]
max_accuracy_drop = 10.0
accept_no_privacy = true
"""


def test_rounded_variant_is_served_as_a_canary_and_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    _write_project(tmp_path)
    assert run_command(["simulate", "federation.toml"]) == 0
    assert run_command(["export", "latest"]) == 0
    (release,) = tmp_path.glob("runs/*/export/1")
    record = read_record(release)
    found = {(v.target, v.name): v for v in record.variants}
    assert set(found) == {
        ("server", "float32"),
        ("server", "bfloat16"),
        ("onnx", "float32"),
    }
    rounded = found["server", "bfloat16"]
    assert rounded.refusal is None
    assert rounded.raw is not None
    assert rounded.max_output_difference > 1e-5
    assert found["onnx", "float32"].max_output_difference <= 1e-5

    base = ["--base", str(tmp_path / "serving")]
    for variant in ("float32", "bfloat16"):
        chosen = ["--variant", variant]
        assert run_command(["release", "publish", str(release), *base, *chosen]) == 0
    assert "fedtrain release label canary 2" in capsys.readouterr().out
    assert run_command(["release", "label", "canary", "2", *base]) == 0
    (served,) = read_models(tmp_path / "serving" / MODELS)
    assert served.labels == {"stable": 1, "canary": 2}
    columns = {"income_level": tf.constant([1.5], tf.float64), "region": ["north"]}
    outputs = [_served(tmp_path / "serving/rows", i, columns) for i in (1, 2)]
    np.testing.assert_allclose(*outputs, rtol=0.05)

    saved_model = tmp_path / "serving" / "rows" / "2" / "saved_model.pb"
    saved_model.write_bytes(saved_model.read_bytes() + b"\0")
    assert run_command(["release", "label", "stable", "2", *base]) == 9


def _served(folder: Path, version: int, columns: Any) -> Any:
    signatures = tf.saved_model.load(str(folder / str(version))).signatures
    given = {name: tf.convert_to_tensor(value) for name, value in columns.items()}
    return signatures["raw_examples"](**given)["probabilities"].numpy()


def _write_project(folder: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["income level,region,outcome"]
    for _ in range(200):
        income, region = random.normal(), random.choice(["north", "south"])
        lines.append(f"{income:.3f},{region},{int(income > 0)}")
    (folder / "rows.csv").write_text("\n".join(lines))
    (folder / "federation.toml").write_text(PROJECT)
