from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.export.bfloat16 import in_bfloat16
from fedtrain.export.server import write_server
from fedtrain.export.source import ServedModel, Source
from fedtrain.export.verify import sizes
from fedtrain.models.dense import dense_classifier
from fedtrain.models.keras import keras_model
from fedtrain.models.model import ForwardPass
from fedtrain.models.recurrent import character_lstm

Make = Callable[..., Source]


def _examples(*shape: int) -> Examples:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return Examples(features=features, labels=np.zeros(shape[0], np.int32))


@pytest.fixture(scope="module")
def dense(source_with: Make) -> Source:
    return source_with(dense_classifier(20, 3, hidden=[64]), _examples(50, 20))


def _convolutions(source_with: Make) -> Source:
    layers = [
        keras.layers.Conv2D(8, 3, activation="relu", padding="same"),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential([keras.layers.Input([8, 8, 1]), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return source_with(keras_model(model, loss=loss), _examples(10, 8, 8, 1))


def _characters(source_with: Make) -> Source:
    ids = np.random.default_rng(0).integers(1, 9, [4, 6]).astype(np.int32)
    examples = Examples(features=ids, labels=ids)
    return source_with(
        character_lstm(9, units=[16]), examples, task="next_token", label_names=()
    )


def _assert_rounded(source: Source) -> None:
    """Close to the model's own outputs, but as far off as 8 bits are."""
    expected = source.reference()
    found = in_bfloat16(source).reference()
    assert found.dtype == expected.dtype == np.float32
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < 0.02


def test_dense_products_are_rounded_and_nothing_else(dense: Source) -> None:
    _assert_rounded(dense)
    served = ServedModel(in_bfloat16(dense)).features.get_concrete_function()
    assert served.structured_outputs["probabilities"].dtype == tf.float32
    total = served(tf.constant(dense.evaluation.features))["probabilities"]
    np.testing.assert_allclose(tf.reduce_sum(total, axis=1), 1.0, atol=1e-6)


def test_convolutions_are_computed_so_too(source_with: Make) -> None:
    _assert_rounded(_convolutions(source_with))


def test_so_are_products_inside_loops(source_with: Make) -> None:
    _assert_rounded(_characters(source_with))


def test_weights_are_half_as_large_on_disk(
    dense: Source, tmp_path: Any, source_with: Make
) -> None:
    large = source_with(dense_classifier(200, 3, hidden=[2000]), _examples(2, 200))
    full = write_server(large, tmp_path / "full", version=1)
    half = write_server(in_bfloat16(large), tmp_path / "half", version=1)
    assert sizes(half)[0] < 0.6 * sizes(full)[0]
    loaded = tf.saved_model.load(str(half)).signatures["serving_default"]
    found = loaded(features=tf.constant(large.evaluation.features))["outputs"]
    expected = in_bfloat16(large).reference()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_model_without_products_is_refused(source_with: Make) -> None:
    def doubled(weights: Any, features: Any, **kwargs: Any) -> ForwardPass:
        return ForwardPass(2.0 * features, weights.state, 0.0)

    model = dense_classifier(3, 3)._replace(forward=doubled)
    with pytest.raises(ConfigError, match="no float32 matrix product"):
        in_bfloat16(source_with(model, _examples(2, 3)))
