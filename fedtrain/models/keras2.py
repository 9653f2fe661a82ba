"""Keras 2 models as functions of their weights, by swapping the class of variables.

Once a model is built, each of its variables becomes an instance of a subclass of its
own class. The object stays the same, so every reference to it follows (attributes,
lists, cells of recurrent layers, shared layers). Within a *frame* the variable reads
and writes the tensor that the frame holds for it; outside it behaves as before, so that
``fit``, ``save`` and ``predict`` go on working. Random generators of layers likewise
draw from the frame's seed.
"""

import functools
import threading
from typing import Any

import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.models.keras_trace import Call

_ACTIVE = threading.local()
_Base: Any = object  # in truth the class whose instances are swapped


def variables(model: Any) -> tuple[list[Any], list[Any]]:
    """The model's trainable and other variables, made ready for ``call``."""
    trainable = [_plain(variable) for variable in model.trainable_variables]
    others = [_plain(variable) for variable in model.non_trainable_variables]
    for variable in [*trainable, *others]:
        _swap(variable, SwappedVariable)
    for generator in _generators(model):
        _swap(generator, SwappedGenerator)
    return trainable, others


def call(
    model: Any,
    given: list[tuple[Any, Any]],
    features: Any,
    seed: Any,
    *,
    training: bool,
) -> Call:
    """Calls ``model`` with tensors in place of its variables."""
    frame = Frame({id(variable): value for variable, value in given}, seed)
    with frame, _autograph_enabled():
        outputs = _outputs(model, frame, features, training=training)
        penalties = list(model.losses)
    values = [frame.values[id(variable)] for variable, _ in given]
    data_losses = any(
        layer._losses or layer._eager_losses for layer in model._flatten_layers()
    )
    if data_losses:
        model._clear_losses()  # they are tensors of this trace
    return Call(outputs, values, penalties, data_losses)


class Frame:
    """The tensors that stand for variables during one call of a model."""

    def __init__(self, values: dict[int, Any], seed: Any) -> None:
        self.values = values
        self._seed = seed
        self._draws = 0
        self.refusal: ConfigError | None = None
        self._graph = tf.compat.v1.get_default_graph()

    def __enter__(self) -> "Frame":
        self._outer = current_frame()
        _ACTIVE.frame = self
        return self

    def __exit__(self, *error: object) -> None:
        _ACTIVE.frame = self._outer

    def next_seed(self) -> tf.Tensor:
        """A seed for one more draw, int32 [2]."""
        self._draws += 1
        return tf.stack([self._seed[0] + self._draws, self._seed[1]])

    def write(self, variable: Any, value: Any) -> Any:
        """Makes ``value`` the new value of ``variable``, and returns it."""
        if tf.compat.v1.get_default_graph() is not self._graph:
            self.refusal = ConfigError(
                f"{variable.name} is assigned inside a loop, a condition or a "
                "tf.function within the model, from where its new value cannot come "
                "out; assign it in the layer's call itself."
            )
            raise self.refusal
        value = tf.convert_to_tensor(value, variable.dtype)
        self.values[id(variable)] = tf.ensure_shape(value, variable.shape)
        return self.values[id(variable)]


def current_frame() -> Frame | None:
    """This thread's frame, if it is inside one."""
    return getattr(_ACTIVE, "frame", None)


class SwappedVariable(_Base):
    """What a variable does inside a frame; the original class does the rest."""

    def value(self, *args: Any, **kwargs: Any) -> Any:
        """The frame's tensor."""
        return _frame_value(self, super(), "value", args, kwargs)

    def read_value(self, *args: Any, **kwargs: Any) -> Any:
        """The frame's tensor."""
        return _frame_value(self, super(), "read_value", args, kwargs)

    def read_value_no_copy(self, *args: Any, **kwargs: Any) -> Any:
        """The frame's tensor."""
        return _frame_value(self, super(), "read_value_no_copy", args, kwargs)

    def _read_variable_op(self, *args: Any, **kwargs: Any) -> Any:
        return _frame_value(self, super(), "_read_variable_op", args, kwargs)

    def _dense_var_to_tensor(self, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        value = _held(self)
        if value is None:
            return super()._dense_var_to_tensor(dtype, *args, **kwargs)
        if dtype is not None and not tf.as_dtype(dtype).is_compatible_with(value.dtype):
            return NotImplemented
        return value

    def sparse_read(self, indices: Any, name: Any = None) -> Any:
        """Rows of the frame's tensor."""
        value = _held(self)
        if value is None:
            return super().sparse_read(indices, name)
        return tf.gather(value, indices, name=name)

    def gather_nd(self, indices: Any, name: Any = None) -> Any:
        """Slices of the frame's tensor."""
        value = _held(self)
        if value is None:
            return super().gather_nd(indices, name)
        return tf.gather_nd(value, indices, name=name)

    def assign(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Writes to the frame."""
        frame = _frame_of(self)
        if frame is None:
            return super().assign(value, *args, **kwargs)
        return frame.write(self, value)

    def assign_add(self, delta: Any, *args: Any, **kwargs: Any) -> Any:
        """Writes to the frame."""
        frame = _frame_of(self)
        if frame is None:
            return super().assign_add(delta, *args, **kwargs)
        return frame.write(self, _held(self) + tf.cast(delta, self.dtype))

    def assign_sub(self, delta: Any, *args: Any, **kwargs: Any) -> Any:
        """Writes to the frame."""
        frame = _frame_of(self)
        if frame is None:
            return super().assign_sub(delta, *args, **kwargs)
        return frame.write(self, _held(self) - tf.cast(delta, self.dtype))

    @property
    def handle(self) -> Any:
        """No handle inside a frame: ``embedding_lookup`` asks whether there is one."""
        if _held(self) is not None:
            raise AttributeError("handle")
        return super().handle


class SwappedGenerator(_Base):
    """What a layer's random generator does inside a frame."""

    def dropout(self, inputs: Any, rate: Any, noise_shape: Any = None) -> Any:
        """``inputs`` with a share of ``rate`` set to zero, the others scaled up."""
        frame = current_frame()
        if frame is None:
            return super().dropout(inputs, rate, noise_shape)
        shape = tf.shape(inputs) if noise_shape is None else noise_shape
        uniforms = seeds.hashed_uniform(shape, frame.next_seed())
        kept = tf.cast(uniforms >= tf.cast(rate, uniforms.dtype), inputs.dtype)
        return inputs * kept / tf.cast(1.0 - rate, inputs.dtype)

    def random_uniform(
        self, shape: Any, minval: Any = 0.0, maxval: Any = None, **kwargs: Any
    ) -> Any:
        """Uniform numbers from the frame's seed."""
        frame = current_frame()
        if frame is None:
            return super().random_uniform(shape, minval, maxval, **kwargs)
        uniforms = seeds.hashed_uniform(shape, frame.next_seed(), _dtype(kwargs))
        return minval + uniforms * ((1.0 if maxval is None else maxval) - minval)

    def random_normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, **kwargs: Any
    ) -> Any:
        """Normal numbers from the frame's seed."""
        frame = current_frame()
        if frame is None:
            return super().random_normal(shape, mean, stddev, **kwargs)
        dtype = _dtype(kwargs)
        return mean + seeds.normal(shape, frame.next_seed(), stddev=stddev, dtype=dtype)

    def make_seed_for_stateless_op(self) -> Any:
        """A seed from the frame, int32 [2]."""
        frame = current_frame()
        if frame is None:
            return super().make_seed_for_stateless_op()
        return frame.next_seed()


def _outputs(model: Any, frame: Frame, features: Any, *, training: bool) -> Any:
    try:
        return model(features, training=training)
    except Exception:
        if frame.refusal:  # autograph dresses it up as an error of its own
            raise frame.refusal from None
        raise


@functools.cache
def _autograph_enabled() -> Any:
    """A context in which Keras 2 converts a user's ``call``, as it does in ``fit``."""

    def status() -> Any:
        return tf.__internal__.autograph.control_status_ctx()

    return tf.autograph.to_graph(status)()


def _frame_of(variable: Any) -> Frame | None:
    frame = current_frame()
    return frame if frame and id(variable) in frame.values else None


def _held(variable: Any) -> Any:
    frame = _frame_of(variable)
    return None if frame is None else frame.values[id(variable)]


def _frame_value(
    variable: Any, original: Any, method: str, args: Any, kwargs: Any
) -> Any:
    value = _held(variable)
    return getattr(original, method)(*args, **kwargs) if value is None else value


def _plain(variable: Any) -> Any:
    # Mixed precision wraps each variable; the wrapper casts what the inner one gives.
    inner = getattr(variable, "_variable", variable)
    if not hasattr(inner, "_dense_var_to_tensor") or hasattr(inner, "_values"):
        raise ConfigError(
            f"{variable.name} is a {type(inner).__name__}; build the model outside of "
            "any distribution strategy."
        )
    return inner


def _dtype(kwargs: dict[str, Any]) -> Any:
    return tf.as_dtype(kwargs.get("dtype") or tf.keras.backend.floatx())


def _generators(model: Any) -> list[Any]:
    found = [
        value for layer in model._flatten_layers() for value in vars(layer).values()
    ]
    return [value for value in found if hasattr(value, "make_legacy_seed")]


def _swap(instance: Any, replacement: type) -> None:
    kind: Any = type(instance)
    if not issubclass(kind, replacement):
        instance.__class__ = _subclass(kind, replacement)


@functools.cache
def _subclass(original: Any, replacement: Any) -> Any:
    return type(original)(original.__name__, (replacement, original), {})
