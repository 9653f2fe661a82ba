"""What makes tracing a user's Keras model safe: fresh functions, and no escapes.

A ``@tf.function`` on a layer's ``call`` keeps the tensors of its first trace and would
silently compute with stale weights; it is undone while the model is traced. Afterwards
the trace is searched for variables and random numbers that no argument controls.
"""

import contextlib
import re
import threading
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.core.graphs import operation_names

_KERAS_OWN = {
    "train_function",
    "test_function",
    "predict_function",
    "train_tf_function",
}
_RANDOM = re.compile(
    r"Random|Rng|Multinomial|TruncatedNormal|Stateful(Standard|Uniform)"
)


class Call(NamedTuple):
    """What one call of the model gave.

    Attributes:
      outputs: What the model returned.
      values: The frame's value of every variable, by position.
      penalties: The regularisation losses.
      data_losses: Whether a layer added a loss that depends on the rows.
    """

    outputs: Any
    values: list[Any]
    penalties: list[Any]
    data_losses: bool


_INLINED = threading.local()


@contextlib.contextmanager
def inlined() -> Iterator[None]:
    """Within, Keras models are traced into the graph at hand, not as a call in it.

    For those who look at the operations of a forward pass. The graph must be one of its
    own, which takes nothing from another.
    """
    before = is_inlined()
    _INLINED.active = True
    try:
        yield
    finally:
        _INLINED.active = before


def is_inlined() -> bool:
    """Whether this thread is inside ``inlined``."""
    return getattr(_INLINED, "active", False)


@contextlib.contextmanager
def without_inner_functions(layers: list[Any]) -> Iterator[None]:
    """Within, every ``@tf.function`` of these layers is the plain function it wraps."""
    changed = []
    for layer in layers:
        for name, function in _inner_functions(layer).items():
            changed.append((layer, name, vars(layer).get(name)))
            layer.__dict__[name] = function
    try:
        yield
    finally:
        for layer, name, before in reversed(changed):
            if before is None:
                del layer.__dict__[name]
            else:
                layer.__dict__[name] = before


def check_trace(name: str) -> None:
    """Refuses the function just traced if a variable or unseeded randomness escaped.

    Raises:
      ConfigError: It reads a variable or a table that is no weight of the model, a
        tensor of another trace, or draws random numbers that ignore the seed.
    """
    graph = tf.compat.v1.get_default_graph()
    for outside, inside in graph.captures:
        if outside.dtype == tf.resource:
            raise ConfigError(_escaped(name, _variable_name(outside, inside)))
        if not hasattr(outside, "numpy"):
            raise ConfigError(
                f"{name} uses {outside.name!r}, a tensor kept from an earlier call; "
                "compute it anew in each call, and use no tf.function that closes "
                "over weights."
            )
    for operation in sorted(_stateful_random(graph)):
        raise ConfigError(
            f"{name} draws random numbers with {operation!r}, which ignores the seed, "
            "so runs could not be repeated; use a Keras layer such as Dropout or "
            "GaussianNoise instead of tf.random, tf.nn.dropout or keras.random."
        )


def _inner_functions(layer: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for owner in reversed(type(layer).__mro__):
        for name, value in vars(owner).items():
            if _is_function(value):
                found[name] = types.MethodType(_plain(value), layer)
            else:
                found.pop(name, None)
    own = vars(layer).items()
    found |= {name: _plain(value) for name, value in own if _is_function(value)}
    return {name: value for name, value in found.items() if name not in _KERAS_OWN}


def _is_function(value: Any) -> bool:
    return isinstance(value, tf.types.experimental.GenericFunction) and hasattr(
        value, "python_function"
    )


def _plain(function: Any) -> Any:
    # A tensor in an `if` or a loop is legal in a tf.function, so it must stay legal.
    return tf.autograph.to_graph(function.python_function)


def _stateful_random(graph: Any) -> set[str]:
    return {
        name
        for name in operation_names(graph)
        if _RANDOM.search(name) and not name.startswith("Stateless")
    }


def _variable_name(outside: Any, inside: Any) -> str:
    for variable in tf.compat.v1.get_default_graph().variables:
        if getattr(variable, "_handle", None) is outside:
            return str(variable.name)
    return str(inside.name)


def _escaped(name: str, variable: str) -> str:
    return (
        f"{name} reads {variable!r}, which is a variable or a table but no weight of "
        "the model, so training could not change it and would use a stale value. "
        "Create variables with the layer's add_weight, use no stateful=True recurrent "
        "layers, and move lookups of strings and categories into the data."
    )
