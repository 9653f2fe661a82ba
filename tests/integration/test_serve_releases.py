"""From a run to versions that a server loads, all from the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import aggregator.serve
from aggregator.cli import main
from fedtrain.cli.main import run as run_command
from fedtrain.export.record import Release, read_record
from fedtrain.export.serving_files import MODELS, read_models
from tests.unit.aggregator.kept_federation import kept

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
"""


class Exported(NamedTuple):
    folder: Path
    record: Release


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    root = tmp_path_factory.mktemp("serve")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        _write_project(root)
        assert run_command(["simulate", "federation.toml"]) == 0
        assert run_command(["export", "latest", "--accept-no-privacy"]) == 0
        (folder,) = root.glob("runs/*/export/1")
        yield Exported(folder, read_record(folder))


def test_raw_rows_are_encoded_as_they_were_for_training(exported: Exported) -> None:
    record = exported.record
    assert record.release_status == "no_privacy"
    assert record.lineage.schema_sha256 is not None
    found = {(v.target, v.name): v for v in record.variants}
    exact, rounded = (found["server", name] for name in ("float32", "bfloat16"))
    assert exact.raw is not None
    assert exact.raw.max_output_difference <= 1e-6
    assert rounded.refusal is None
    assert rounded.raw is not None
    assert rounded.max_output_difference > 1e-5
    assert found["onnx", "float32"].max_output_difference <= 1e-5
    assert len(found) == 3
    assert run_command(["release", "verify", str(exported.folder)]) == 10


def test_without_privacy_the_flag_is_needed(exported: Exported, capsys: Any) -> None:
    assert run_command(["export", str(exported.folder.parents[1])]) == 2
    assert "--accept-no-privacy" in capsys.readouterr().err


def test_rounded_variant_is_served_as_a_canary_and_promoted(
    exported: Exported, tmp_path: Path, capsys: Any
) -> None:
    base = ["--base", str(tmp_path / "serving")]
    release = str(exported.folder)
    for variant in ("float32", "bfloat16"):
        chosen = ["--variant", variant]
        assert run_command(["release", "publish", release, *base, *chosen]) == 0
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


def test_serving_ends_with_the_release_and_its_status(
    exported: Exported, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = {"run": "the run", "release": str(exported.folder)}
    monkeypatch.setattr(aggregator.serve, "serve", lambda *_, **__: summary)
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--export", "--home", str(kept(tmp_path).path)])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "Run folder           the run" in text
    assert "server bfloat16" in text
    assert "Release status       no_privacy" in text


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
