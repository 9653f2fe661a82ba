"""A run, exported from the command line; every artefact loaded in a fresh process."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.cli.main import run as run_command
from fedtrain.data.examples import Examples
from fedtrain.export.record import Release, read_record
from fedtrain.export.server import WARMUP
from fedtrain.rounds.evaluation import Evaluator

SMALL = ["data.num_clients=4", "rounds.num_rounds=5", "evaluation.baselines=false"]
QUIET = ["tracking.tensorboard=false", "tracking.html_report=false"]


class Exported(NamedTuple):
    run: Path
    folder: Path
    record: Release


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    root = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        settings = [word for key in [*SMALL, *QUIET] for word in ("-s", key)]
        assert run_command(["simulate", *settings]) == 0
        assert run_command(["export", "latest", "--to", "server,edge,web"]) == 0
        (run,) = (root / "runs").iterdir()
        folder = (run / "export" / "1").resolve()
        yield Exported(run.resolve(), folder, read_record(folder))


def test_every_variant_was_measured_and_each_target_has_a_recommended_one(
    exported: Exported,
) -> None:
    found = {(v.target, v.name): v for v in exported.record.variants}
    edge = ("float32", "float16", "dynamic_int8", "int8")
    web = ("float32", "float16", "uint8")
    assert set(found) == {
        ("server", "float32"),
        *(("edge", name) for name in edge),
        *(("web", name) for name in web),
    }
    assert found["server", "float32"].max_output_difference <= 1e-6
    assert found["edge", "float32"].max_output_difference <= 1e-4
    assert found["web", "float32"].max_output_difference <= 1e-5
    assert (exported.folder / "web" / "index.html").is_file()
    assert found["edge", "float16"].size_bytes < found["edge", "float32"].size_bytes
    chosen = [v for v in found.values() if v.recommended]
    assert sorted(v.target for v in chosen) == ["edge", "server", "web"]
    for variant in found.values():
        assert 0 < variant.latency_1.p50_s <= variant.latency_1.p99_s
        kept = variant.path is not None and (exported.folder / variant.path).exists()
        assert kept == (variant.refusal is None)


def test_lineage_names_public_rows(exported: Exported) -> None:
    info = json.loads((exported.run / "run.json").read_text())
    assert exported.record.lineage.data_sha256 == info["data_sha256"]


def test_scores_of_the_source_are_those_of_the_run(exported: Exported) -> None:
    summary = json.loads((exported.run / "summary.json").read_text())
    accuracy = exported.record.source_scores["accuracy"]
    assert accuracy == pytest.approx(summary["test"]["accuracy"], abs=1e-6)


def test_warmup_requests_run_on_the_saved_model(exported: Exported) -> None:
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    saved = exported.folder / "server" / "digits" / "1"
    signature = tf.saved_model.load(str(saved)).signatures
    sizes = []
    for line in tf.data.TFRecordDataset(str(saved / WARMUP)):
        request = logs.PredictionLog.FromString(line.numpy()).predict_log.request
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        named = {name: tf.constant(value) for name, value in inputs.items()}
        outputs = signature[request.model_spec.signature_name](**named)
        np.testing.assert_allclose(
            outputs["probabilities"].numpy().sum(axis=1), 1.0, atol=1e-6
        )
        sizes.append(len(outputs["outputs"]))
    assert sizes == [1, 32]


def test_edge_file_carries_its_labels(exported: Exported) -> None:
    with zipfile.ZipFile(exported.folder / "edge" / "digits-float16.tflite") as archive:
        facts = json.loads(archive.read("metadata.json"))
        assert archive.read("labels.txt").decode().split("\n") == list("0123456789")
    assert facts["release_status"] == "simulation"


def test_verify_holds_anywhere_and_says_that_it_is_a_simulation(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    assert run_command(["release", "verify", str(copy), "--format", "json"]) == 10
    found = json.loads(capsys.readouterr().out)
    assert found["release_status"] == "simulation"
    assert run_command(["release", "diff", str(exported.folder), str(copy)]) == 0
    assert "the same" in capsys.readouterr().out
    wrong = ["--signer", "0" * 16]
    assert run_command(["release", "verify", str(copy), *wrong]) == 9


@pytest.mark.parametrize(
    "name", ["edge/digits-float16.tflite", "privacy_report.json", "release.html"]
)
def test_changed_file_is_named(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert run_command(["release", "verify", str(copy)]) == 9
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("change", ["record", "added", "missing"])
def test_other_tampering_is_found(
    exported: Exported, tmp_path: Path, change: str
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    if change == "record":
        path = copy / "release.json"
        values = json.loads(path.read_text())
        values["source_scores"]["accuracy"] = 0.99
        path.write_text(json.dumps(values))
    if change == "added":
        (copy / "edge" / "more.tflite").write_text("not released")
    if change == "missing":
        (copy / "server" / "models.config").unlink()
    assert run_command(["release", "verify", str(copy)]) == 9


def test_target_beyond_its_bounds_is_refused_and_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Evaluator, "predict", _always_right)
    arguments = ["export", str(exported.run), "--to", "edge", "--into", str(tmp_path)]
    assert run_command(arguments) == 8
    assert "closest is" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_unknown_target_is_refused_by_name(exported: Exported, capsys: Any) -> None:
    assert run_command(["export", str(exported.run), "--to", "watch"]) == 2
    assert "server, edge, web" in capsys.readouterr().err


def test_changed_tfjs_is_refused_before_any_work(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "tfjs-core-4.22.0.tgz").write_bytes(b"not what was published")
    monkeypatch.setenv("FEDTRAIN_TFJS_DIR", str(tmp_path))
    into = tmp_path / "export"
    arguments = ["export", str(exported.run), "--to", "web", "--into", str(into)]
    assert run_command(arguments) == 2
    assert "tfjs-core-4.22.0.tgz" in capsys.readouterr().err
    assert not into.exists()


def _always_right(self: Any, weights: Any, examples: Examples) -> Any:
    del self, weights
    return 9.0 * np.eye(10, dtype=np.float32)[examples.labels]
