import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Array, Examples
from fedtrain.export import web
from fedtrain.export.node import run_in_node
from fedtrain.export.source import OUTPUTS, PROBABILITIES, Source
from fedtrain.export.web import VARIANTS, write_web
from fedtrain.models.recurrent import character_lstm
from tests.unit.export.web_models import convolution, image_source, source

Written = tuple[Source, dict[str, Path]]
# What 255 steps a kernel, and 11 bits a weight, cost this model; measured, doubled.
MOST_DIFFERENCE = {"float32": 1e-5, "float16": 2e-3, "uint8": 0.1}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Written:
    made = image_source()
    folder = tmp_path_factory.mktemp("web")
    return made, write_web(made, folder / "web", variants=list(VARIANTS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_in_node_are_the_sources(images: Written, variant: str) -> None:
    made, paths = images
    outputs, figures = _run(paths[variant], made.evaluation.features)
    difference = np.abs(outputs - made.reference()).max()
    assert difference <= MOST_DIFFERENCE[variant]
    assert figures["peak_memory_bytes"] is None or figures["peak_memory_bytes"] > 1e7


def test_probabilities_in_node_are_the_sources(images: Written) -> None:
    made, paths = images
    outputs, _ = _run(paths["float32"], made.evaluation.features, PROBABILITIES)
    expected = tf.nn.softmax(made.reference()).numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_each_timed_call_of_each_batch_is_reported(images: Written) -> None:
    made, paths = images
    rows = {"features": made.evaluation.features[:2]}
    repeats = {1: 3, 32: 2}
    _, figures = run_in_node(paths["uint8"], rows, output=OUTPUTS, repeats=repeats)
    counts = {int(size): len(calls) for size, calls in figures["seconds"].items()}
    assert counts == repeats
    assert min(min(calls) for calls in figures["seconds"].values()) > 0


def test_weights_shrink_as_their_types_do(images: Written) -> None:
    _, paths = images
    sizes = {
        name: (path / "weights.bin").stat().st_size for name, path in paths.items()
    }
    assert sizes["float16"] / sizes["float32"] == pytest.approx(0.5, abs=0.02)
    assert sizes["uint8"] / sizes["float32"] == pytest.approx(0.25, abs=0.02)


def test_graph_holds_no_weights_and_no_functions(images: Written) -> None:
    _, paths = images
    model = json.loads((paths["float32"] / "model.json").read_text())
    assert len(json.dumps(model)) < 10_000
    assert "library" not in model["modelTopology"]
    assert set(model["signature"]["outputs"]) == {OUTPUTS, PROBABILITIES}


def test_loops_and_whole_numbers_run_in_node(tmp_path: Path) -> None:
    tokens = np.arange(60, dtype=np.int32).reshape(4, 15) % 30
    rows = Examples(features=tokens, labels=tokens)
    model = character_lstm(30, units=(8,))
    made = source(model, tokens, evaluation=rows, task="next_token")
    (path,) = write_web(made, tmp_path / "web", variants=["float32"]).values()
    outputs, _ = _run(path, tokens)
    np.testing.assert_allclose(outputs, made.reference(), atol=1e-5)


@pytest.mark.parametrize(
    ("last", "named"),
    [
        (tf.math.lgamma, "no operation Lgamma"),
        (lambda x: tf.cast(tf.cast(x, tf.bfloat16) + 1, tf.float32), "bfloat16"),
    ],
)
def test_what_tfjs_cannot_take_is_named_with_the_target_that_can(
    last: Any, named: str, tmp_path: Path
) -> None:
    made = source(convolution(last), np.zeros((1, 28, 28, 1), np.float32))
    with pytest.raises(ConfigError, match=f"(?s){named}.*server target"):
        write_web(made, tmp_path / "web", variants=["float32"])


def test_masks_are_named_where_the_kernels_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*given: Any, **named: Any) -> Any:
        raise ConfigError("RuntimeError: memory access out of bounds")

    monkeypatch.setattr(web, "run_in_node", ended)
    made = source(convolution(), np.zeros((1, 28, 28, 1), np.float32))
    with pytest.raises(ConfigError, match=r"mask_zero or Masking.*server target"):
        write_web(made, tmp_path / "web", variants=["float32"])


def _run(path: Path, rows: Array, output: str = OUTPUTS) -> tuple[Array, Any]:
    return run_in_node(path, {"features": rows}, output=output, repeats={})
