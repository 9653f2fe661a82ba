"""Recurrent layers without loops compute what they do with them."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.core.graphs import operation_names
from fedtrain.models.keras import keras_model
from fedtrain.models.model import Model, output_values
from fedtrain.models.recurrent import character_lstm
from fedtrain.models.unrolled import MAX_STEPS, unrolled

LOOPS = {"While", "StatelessWhile", "TensorListReserve"}


def keras_recurrent(num_steps: int | None, *layers: Any) -> Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    given = keras.layers.Input([num_steps, 3])
    return keras_model(keras.Sequential([given, *layers]), loss=loss)


def traced(model: Model, spec: tf.TensorSpec) -> Any:
    weights = model.init(seeds.root(1))

    @tf.function(autograph=False)
    def outputs(features: Any) -> Any:
        seed = tf.constant([0, 0])
        result = model.forward(weights, features, training=False, seed=seed)
        return output_values(result.outputs)

    return outputs.get_concrete_function(spec)


@pytest.mark.parametrize("kind", ["keras", "characters"])
def test_outputs_are_those_of_the_loop_and_no_loop_is_left(kind: str) -> None:
    random = np.random.default_rng(1)
    if kind == "keras":
        both = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True))
        model = keras_recurrent(3, keras.layers.Masking(), both)
        steps = random.normal(size=[6, 3, 3])
        steps[2, 1:] = 0.0  # masked
        rows = tf.constant(steps, tf.float32)
    else:
        model = character_lstm(20, units=[8])
        rows = tf.constant(random.integers(0, 20, [6, 5]), tf.int32)
    spec = tf.TensorSpec([None, *rows.shape[1:]], rows.dtype)
    before = traced(model, spec)
    with unrolled():
        without = traced(model, spec)
    after = traced(model, spec)
    np.testing.assert_allclose(without(rows), before(rows), atol=1e-6)
    assert not operation_names(without.graph) & LOOPS
    assert operation_names(after.graph) & LOOPS


@pytest.mark.parametrize(
    ("num_steps", "found"), [(None, "any number of"), (MAX_STEPS + 1, "513")]
)
def test_layer_with_too_many_steps_is_named(num_steps: Any, found: str) -> None:
    model = keras_recurrent(num_steps, keras.layers.GRU(4))
    with pytest.raises(ConfigError, match=f"takes {found} steps"), unrolled():
        traced(model, tf.TensorSpec([None, num_steps, 3]))
