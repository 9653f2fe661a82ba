"""Every kind of model as TFLite, run where it will run; errors name what cannot be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import chain, one_shot
from fedtrain.compression.prune import pruned
from fedtrain.compression.quantize import quantized
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.export.activation_ranges import _calibrated, _tensors
from fedtrain.export.calibration import Calibration
from fedtrain.export.edge import default_variants, write_edge
from fedtrain.export.source import ServedModel, Source
from fedtrain.models.keras import keras_model
from fedtrain.models.model import Model

SMALLER = chain(pruned(0.8), clustered(16), quantized(per_channel=False))
RANDOM = np.random.Generator(np.random.Philox(3))
LAYERS = {
    "dense": [keras.layers.Input([6]), keras.layers.Dense(32, "relu")],
    "convolution": [
        keras.layers.Input([8, 8, 2]),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(32),
    ],
    "embedding": [
        keras.layers.Input([5], dtype="int32"),
        keras.layers.Embedding(50, 16),
        keras.layers.Flatten(),
    ],
    "recurrent": [
        keras.layers.Input([5, 3]),
        keras.layers.LSTM(8, return_sequences=True),
        keras.layers.GRU(6),
    ],
}
ROWS: dict[str, Any] = {
    "dense": RANDOM.normal(size=[40, 6]).astype(np.float32),
    "convolution": RANDOM.normal(size=[40, 8, 8, 2]).astype(np.float32),
    "embedding": RANDOM.integers(0, 50, [40, 5]).astype(np.int32),
    "recurrent": RANDOM.normal(size=[40, 5, 3]).astype(np.float32),
}
CASES = [
    ("dense", "int16x8"),
    ("dense", "compressed_int8"),
    ("convolution", "compressed_int8"),
    ("convolution", "compressed_dynamic_int8"),
    ("embedding", "compressed_dynamic_int8"),
    ("recurrent", "dynamic_int8"),
]


def model_of(kind: str) -> Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    layers = [*LAYERS[kind], keras.layers.Dense(3)]
    return keras_model(keras.Sequential(layers), loss=loss)


@pytest.fixture
def source_of(source_with: Callable[..., Source]) -> Callable[[str], Source]:
    section = SimpleNamespace(num_clusters=16)
    run = SimpleNamespace(config=SimpleNamespace(compression=section))

    def source(kind: str) -> Source:
        rows = Examples(features=ROWS[kind], labels=np.zeros(40, np.int32))
        found = source_with(model_of(kind), rows, run=run)
        return replace(found, compressed=one_shot(found.weights, SMALLER))

    return source


def written(
    source: Source, folder: Path, variant: str, calibration: Calibration | None = None
) -> Any:
    path = folder / "model.tflite"
    rows = Calibration(source.evaluation.features, "public training rows")
    write_edge(source, path, variant=variant, calibration=calibration or rows)
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    return litert.Interpreter(model_path=str(path), num_threads=1)


@pytest.mark.parametrize(("kind", "variant"), CASES, ids="-".join)
def test_variants_compute_what_the_model_does(
    source_of: Callable[[str], Source], tmp_path: Path, kind: str, variant: str
) -> None:
    source = source_of(kind)
    interpreter = written(source, tmp_path, variant)
    outputs = interpreter.get_signature_runner()(features=ROWS[kind])["outputs"]
    weights = source.compressed if "compressed" in variant else source.weights
    expected = replace(source, weights=weights).reference()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, atol=0.03 * scale)


@pytest.mark.parametrize("variant", ["compressed_int8", "compressed_dynamic_int8"])
def test_values_of_a_cluster_keep_one_code(
    source_of: Callable[[str], Source], tmp_path: Path, variant: str
) -> None:
    source = source_of("convolution")
    interpreter = written(source, tmp_path, variant)
    interpreter.allocate_tensors()
    kernels = [
        interpreter.get_tensor(details["index"])
        for details in interpreter.get_tensor_details()
        if details["shape"].tolist() in ([16, 3, 3, 2], [32, 576])
        and details["dtype"] == np.int8
    ]
    assert kernels
    for codes in kernels:
        assert len(np.unique(codes)) <= 16


@pytest.mark.parametrize(("variant", "steps"), [("int8", 255), ("int16x8", 32767)])
def test_ranges_that_were_paid_for_take_the_place_of_measured_ones(
    source_of: Callable[[str], Source], tmp_path: Path, variant: str, steps: int
) -> None:
    source, rows = source_of("dense"), ROWS["dense"]
    largest = 2.0 * float(np.abs(rows).max())
    ranges = {
        tensor.name: (-largest, largest)
        for tensor in _tensors(_calibrated(ServedModel(source), rows))
    }
    calibration = Calibration(rows, "noised ranges", ranges)
    interpreter = written(source, tmp_path, variant, calibration)
    (scale,) = {
        details["quantization"][0]
        for details in interpreter.get_tensor_details()
        if details["shape"].tolist() == [1, 6] and details["quantization"][0] > 0
    }
    span = largest if variant == "int16x8" else 2.0 * largest
    assert scale == pytest.approx(span / steps, rel=1e-3)
    outputs = interpreter.get_signature_runner()(features=rows)["outputs"]
    expected = source.reference()
    np.testing.assert_allclose(outputs, expected, atol=0.1 * np.abs(expected).max())


def test_compressed_variants_are_made_of_compressed_weights_only(
    source_of: Callable[[str], Source], tmp_path: Path
) -> None:
    source = source_of("dense")
    assert "compressed_int8" in default_variants(source)
    plain = replace(source, compressed=None)
    assert "compressed_int8" not in default_variants(plain)
    with pytest.raises(ConfigError, match="no compressed weights"):
        written(plain, tmp_path, "compressed_int8")


def test_int8_without_rows_to_measure_ranges_on_says_what_else_there_is(
    source_of: Callable[[str], Source], tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(ConfigError, match=r"needs ranges.*Use dynamic_int8"):
        write_edge(source_of("dense"), path, variant="int8", calibration=None)
    assert not path.exists()
