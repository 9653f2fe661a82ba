"""A user's Keras model as a ``Model``: functions of its weights, for Keras 2 and 3.

The Keras object itself stays usable: ``fit``, ``predict`` and ``save`` work as before
on its own variables, which training here never touches. ``assign`` writes weights back.

What is refused, with the way out: several outputs, losses that depend on the rows
(``add_loss``, ``activity_regularizer``), variables that are no weights, and random
numbers that ignore the seed.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.core.seeds import Seed
from fedtrain.models import keras_trace
from fedtrain.models.keras_losses import (
    loss_quantity,
    metric_quantities,
)
from fedtrain.models.keras_lstm import own_lstm_loops
from fedtrain.models.keras_unrolled import unrolled_layers
from fedtrain.models.model import ForwardPass, MaskedOutputs, Model, ModelWeights
from fedtrain.models.unrolled import is_unrolled

if keras.__version__.startswith("2."):
    from fedtrain.models import keras2 as engine
else:
    from fedtrain.models import keras3 as engine  # type: ignore[no-redef]

_TRACING = threading.RLock()


def keras_model(
    model: Any,
    *,
    loss: Any = None,
    metrics: Any = None,
    class_weights: Mapping[int, float] | None = None,
) -> Model:
    """A built Keras model as functions of its weights.

    ``init`` gives the weights that the Keras model has at that moment, whatever the
    seed: initial or pretrained ones are used as they are. Frozen layers and moving
    averages are in ``ModelWeights.state``; states of random generators are nowhere.

    Args:
      model: Sequential, functional or subclassed, with one output.
      loss: A Keras loss, its name, or ``function(labels, outputs)`` -> values
        [batch, ...] or ``PerExample``; that of ``model.compile`` by default.
      metrics: Likewise; those of ``model.compile``, else accuracy, by default.
      class_weights: What a row of each class counts in the loss; every class from 0 on.

    Raises:
      ConfigError: The model is not built, or the loss or a metric cannot be used.
    """
    _check_built(model)
    quantity = loss_quantity(
        loss or getattr(model, "loss", None) or None, class_weights
    )
    if metrics is None:
        metrics = _compiled_metrics(model)
    trainable, state = weight_variables(model)

    def init(seed: Seed) -> ModelWeights:
        del seed
        return ModelWeights(_values(trainable), _values(state))

    return Model(
        init=init,
        forward=_forward(model),
        loss=quantity,
        metrics=metric_quantities(metrics, quantity),
        mixing_layers=mixing_layers(model),
        name=model.name,
    )


def assign(weights: ModelWeights, model: Any) -> None:
    """Writes ``weights`` into the variables of the Keras ``model`` they belong to."""
    variables = [variable for group in weight_variables(model) for variable in group]
    values = tf.nest.flatten((weights.trainable, weights.state))
    wanted = [tuple(variable.shape) for variable in variables]
    given = [tuple(np.shape(value)) for value in values]
    if wanted != given:
        raise ConfigError(
            f"weights have shapes {given}, but {model.name} needs {wanted}; build the "
            "model with the code that it was trained with."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def weight_variables(model: Any) -> tuple[list[Any], list[Any]]:
    """The Keras variables behind ``trainable`` and ``state``, in their order."""
    trainable, others = engine.variables(model)
    return trainable, [variable for variable in others if _is_float(variable)]


def mixing_layers(model: Any) -> tuple[str, ...]:
    """Names of the layers whose output for one row depends on the other rows.

    A frozen BatchNormalization uses its moving averages only, and does not mix.
    """
    return tuple(
        layer.name
        for layer in model._flatten_layers()
        if layer.trainable
        and any("BatchNorm" in base.__name__ for base in type(layer).__mro__)
    )


def _forward(model: Any) -> Callable[..., ForwardPass]:
    run = _traceable(model)
    # In a graph the shapes are those of the graph; plain Python sees many batch sizes.
    inside, unrolled = (tf.function(run, autograph=False) for _ in range(2))
    outside = tf.function(run, autograph=False, reduce_retracing=True)

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: Seed
    ) -> ForwardPass:
        if not isinstance(training, bool):
            raise ConfigError(f"training must be True or False, got {training!r}.")
        traced: Any = outside if tf.executing_eagerly() else inside
        traced = unrolled if is_unrolled() else traced
        traced = run if keras_trace.is_inlined() else traced
        flat = tuple(tf.nest.flatten((weights.trainable, weights.state)))
        seed = tf.convert_to_tensor(seed, tf.int32)
        features = tf.nest.map_structure(tf.convert_to_tensor, features)
        result, state = traced(flat, features, seed, training)
        outputs = _with_logits(result["outputs"], result.get("logits"))
        if "mask" in result:
            outputs = MaskedOutputs(outputs, result["mask"])
        state = tf.nest.pack_sequence_as(weights.state, state)
        return ForwardPass(outputs, state, result["penalty"])

    return forward


def _traceable(model: Any) -> Callable[..., Any]:
    trainable, state = weight_variables(model)
    _, others = engine.variables(model)
    fixed = [(v, np.asarray(v)) for v in others if not _is_float(v)]
    layers = list(model._flatten_layers())

    def run(values: Any, features: Any, seed: Any, training: bool) -> Any:  # noqa: FBT001 - tf.function tells a bool apart by position
        constants = [(variable, tf.constant(value)) for variable, value in fixed]
        given = [*zip([*trainable, *state], values, strict=True), *constants]
        plain = keras_trace.without_inner_functions(layers)
        own_loops, no_loops = own_lstm_loops(layers), unrolled_layers(layers)
        with _TRACING, plain, own_loops, no_loops:
            called = engine.call(model, given, features, seed, training=training)
        keras_trace.check_trace(model.name)
        _check_call(model, called, constants)
        new = called.values[len(trainable) : len(trainable) + len(state)]
        return _named_outputs(model, called, trainable), tuple(new)

    return run


def _named_outputs(model: Any, called: keras_trace.Call, trainable: Any) -> Any:
    outputs = called.outputs
    if not tf.is_tensor(outputs):
        raise ConfigError(
            f"{model.name} returns a {type(outputs).__name__}, but models with several "
            "outputs are not supported; let it return one tensor."
        )
    dtype = tf.as_dtype(trainable[0].dtype) if trainable else tf.float32
    penalties = [tf.cast(penalty, dtype) for penalty in called.penalties]
    named = {
        "outputs": outputs,
        "penalty": tf.add_n(penalties) if penalties else tf.zeros([], dtype),
        "mask": getattr(outputs, "_keras_mask", None),
        "logits": getattr(outputs, "_keras_logits", None),
    }
    return {name: value for name, value in named.items() if value is not None}


def _with_logits(outputs: Any, logits: Any) -> Any:
    # Keras's losses look for the logits behind a softmax; they are the safer way.
    if logits is not None:
        outputs._keras_logits = logits
    return outputs


def _check_call(model: Any, called: keras_trace.Call, constants: Any) -> None:
    if called.data_losses:
        raise ConfigError(
            f"{model.name} adds a loss that depends on the rows (add_loss or "
            "activity_regularizer), which would count padded rows and escape "
            "per-example clipping; make it part of loss=... instead."
        )
    num_constants = len(constants)
    after = called.values[len(called.values) - num_constants :]
    for (variable, value), new in zip(constants, after, strict=True):
        if new is not value:
            raise ConfigError(
                f"{model.name} assigns {variable.name!r}, which is of type "
                f"{value.dtype.name} and so cannot be averaged over clients; use a "
                "float variable."
            )


def _check_built(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"model must be a Keras {keras.__version__} model, got "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    if not model.built or not model.weights:
        raise ConfigError(
            f"{model.name} is not built, so it has no weights yet; give it an Input "
            "layer, or call it once on some rows."
        )


def _compiled_metrics(model: Any) -> Any:
    for name in ("compiled_metrics", "_compile_metrics"):
        named = getattr(getattr(model, name, None), "_user_metrics", None)
        if named:
            return named
    return None


def _values(variables: list[Any]) -> tuple[Any, ...]:
    return tuple(tf.constant(np.asarray(variable)) for variable in variables)


def _is_float(variable: Any) -> bool:
    return tf.as_dtype(variable.dtype).is_floating
