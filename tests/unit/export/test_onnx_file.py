import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.export import needs
from fedtrain.export.onnx_file import check_onnx_packages, write_onnx
from fedtrain.export.source import Source
from fedtrain.export.verify import Candidate, run_fresh
from fedtrain.models.dense import dense_classifier
from fedtrain.models.keras import keras_model
from fedtrain.models.model import ForwardPass
from fedtrain.models.recurrent import character_lstm

Make = Callable[..., Source]
onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def _examples(*shape: int) -> Examples:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Examples(features=features, labels=np.zeros(shape[0], np.int32))


def _dense(source_with: Make) -> Source:
    return source_with(dense_classifier(5, 3, hidden=[8]), _examples(40, 5))


def _convolutions(source_with: Make) -> Source:
    layers = [
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential([keras.layers.Input([8, 8, 1]), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return source_with(keras_model(model, loss=loss), _examples(40, 8, 8, 1))


def _characters(source_with: Make) -> Source:
    ids = np.random.default_rng(0).integers(1, 9, [40, 6]).astype(np.int32)
    examples = Examples(features=ids, labels=ids)
    return source_with(
        character_lstm(9, units=[16]), examples, task="next_token", label_names=()
    )


@pytest.mark.parametrize("make", [_dense, _convolutions, _characters])
def test_onnx_computes_what_the_model_does(
    source_with: Make, tmp_path: Path, make: Any
) -> None:
    source = make(source_with)
    write_onnx(source, tmp_path / "model.onnx")
    session = runtime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    features = source.evaluation.features
    found = session.run(["outputs"], {"features": features})[0]
    np.testing.assert_allclose(found, source.reference(), atol=1e-5)
    one_row = session.run(["outputs"], {"features": features[:1]})[0]
    np.testing.assert_allclose(one_row, source.reference()[:1], atol=1e-5)


def test_file_says_what_it_is(source_with: Make, tmp_path: Path) -> None:
    write_onnx(_dense(source_with), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["labels"]) == ["no", "yes"]
    assert facts["release_status"] == "simulation"


def test_it_is_measured_in_its_own_runtime_in_a_fresh_process(
    source_with: Make, tmp_path: Path
) -> None:
    source = _dense(source_with)
    path = tmp_path / "model.onnx"
    write_onnx(source, path)
    candidate = Candidate(target="onnx", name="float32", runtime="onnx", path=path)
    rows = {"features": source.evaluation.features}
    outputs, figures = run_fresh(candidate, {"serving_default": rows})[
        "serving_default"
    ]
    np.testing.assert_allclose(outputs, source.reference(), atol=1e-5)
    assert 0 < figures["latency_1"]["p50_s"] <= figures["latency_1"]["p99_s"]


def test_operation_that_onnx_lacks_is_named(source_with: Make, tmp_path: Path) -> None:
    def forward(weights: Any, features: Any, **kwargs: Any) -> ForwardPass:
        return ForwardPass(tf.math.igamma(3.0, features), weights.state, 0.0)

    model = dense_classifier(3, 3)._replace(forward=forward)
    with pytest.raises(ConfigError, match=r"Igamma.*The server target takes"):
        write_onnx(source_with(model, _examples(2, 3)), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(needs.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r'pip install "fedtrain\[onnx\]"'):
        check_onnx_packages()
