"""Keras 3 models as functions of their weights, by Keras's own stateless scope.

Each random layer owns a seed generator whose state is a variable. Here it is set from
the seed of the call, every time: it is no part of the weights, so never averaged.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.models.keras_trace import Call


def variables(model: Any) -> tuple[list[Any], list[Any]]:
    """The model's trainable and other weights; seed generators are neither."""
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"Keras runs on {keras.backend.backend()!r}, but fedtrain needs its "
            "TensorFlow backend; set KERAS_BACKEND=tensorflow."
        )
    return list(model.trainable_weights), list(model.non_trainable_weights)


def call(
    model: Any,
    given: list[tuple[Any, Any]],
    features: Any,
    seed: Any,
    *,
    training: bool,
) -> Call:
    """Calls ``model`` with tensors in place of its variables."""
    mapping = [*given, *_generator_states(model, seed)]
    with keras.StatelessScope(mapping, collect_losses=True) as scope:
        outputs = model(features, **_training_argument(model, training=training))
        data_losses = bool(scope.losses)
        penalties = list(model.losses)
    values = [scope.get_current_value(variable) for variable, _ in given]
    return Call(outputs, values, penalties, data_losses)


def _generator_states(model: Any, seed: Any) -> list[tuple[Any, Any]]:
    weights = {id(variable) for variable in model.weights}
    states = [
        variable
        for variable in model.non_trainable_variables
        if id(variable) not in weights and variable.name == "seed_generator_state"
    ]
    return [
        (state, tf.cast(seeds.fold(seed, i), state.dtype))
        for i, state in enumerate(states)
    ]


def _training_argument(model: Any, *, training: bool) -> dict[str, bool]:
    # As Keras's own training step does: a call without the argument gets none.
    parameters = inspect.signature(model.call).parameters.values()
    takes = any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)
    return {"training": training} if takes else {}
