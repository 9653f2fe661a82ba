"""What a target cannot take is named, with the target that can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.export.edge import write_edge
from fedtrain.export.server import write_server
from fedtrain.export.source import Source
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import ForwardPass

ROWS = Examples(features=np.ones([4, 3], np.float32), labels=np.zeros(4, np.int32))


@pytest.fixture
def source_of(source_with: Callable[..., Source]) -> Callable[[Any], Source]:
    def source(function: Any) -> Source:
        def forward(weights: Any, features: Any, **kwargs: Any) -> ForwardPass:
            return ForwardPass(function(features), weights.state, 0.0)

        return source_with(dense_classifier(3, 3)._replace(forward=forward), ROWS)

    return source


def _gamma(features: Any) -> Any:
    return tf.math.igamma(3.0, features)


def _python(features: Any) -> Any:
    doubled = tf.py_function(lambda x: 2.0 * x, [features], tf.float32)
    return tf.ensure_shape(doubled, [None, 3])


@pytest.mark.parametrize("variant", ["float32", "dynamic_int8"])
def test_tflite_names_the_operation(
    source_of: Any, tmp_path: Path, variant: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"nothing for Igamma\. The server target"):
        write_edge(
            source_of(_gamma), tmp_path / "a.tflite", variant=variant, calibration=None
        )
    assert not list(tmp_path.iterdir())
    assert "loc(" not in capfd.readouterr().err


def test_loop_that_no_layer_knows_is_named(source_of: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TensorListReserve.*The server target"):
        write_edge(
            source_of(lambda x: tf.transpose(tf.map_fn(tf.sin, tf.transpose(x)))),
            tmp_path / "a.tflite",
            variant="float32",
            calibration=None,
        )


def test_server_takes_it(source_of: Any, tmp_path: Path) -> None:
    saved = write_server(source_of(_gamma), tmp_path, version=1)
    served = tf.saved_model.load(str(saved)).signatures["serving_default"]
    found = served(features=tf.constant(ROWS.features))["outputs"]
    np.testing.assert_allclose(found, _gamma(ROWS.features), atol=1e-6)


def test_server_refuses_what_only_this_process_can_compute(
    source_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"calls Python \(EagerPyFunc\)"):
        write_server(source_of(_python), tmp_path, version=1)
    assert not list(tmp_path.iterdir())
