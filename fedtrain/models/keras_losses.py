"""Keras losses and metrics as quantities that add up over rows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.models import losses
from fedtrain.models.model import MaskedOutputs, PerExample, PerExampleFunction

_SUM_NAMES = {"accuracy", "acc"}


@dataclass(frozen=True, eq=False)
class KerasQuantity:
    """A Keras loss or metric as a ``PerExampleFunction``.

    A row's total is the mean over its places, and its count 1; where the model or the
    loss masks places, the sum over the real places, and their number.

    Attributes:
      function: ``function(labels, outputs)`` -> values [batch, ...].
      name: For messages.
      kind: What labels must look like: ``"sparse"``, ``"binary"``, ``"categorical"`` or
        ``"other"``.
      from_logits: Whether outputs are logits; probabilities otherwise.
      class_weights: Optional float array [classes] that multiplies a row's value.
    """

    function: Callable[[Any, Any], Any]
    name: str
    kind: str = "other"
    from_logits: bool = False
    class_weights: Any = None

    def __call__(self, labels: Any, outputs: Any) -> PerExample:
        """The total and the count of each row."""
        outputs, mask = _parts(outputs)
        labels = _matched(labels, outputs)
        values = self.function(labels, outputs)
        if isinstance(values, PerExample):
            return values._replace(total=self._weighted(values.total, labels))
        if values.shape.rank == 0:
            raise ConfigError(
                f"{self.name} gives one number for a whole batch, but each row needs "
                "its own; do not average over the rows in it."
            )
        if mask is None or mask.shape.rank != values.shape.rank:
            mask = getattr(values, "_keras_mask", None)
        return _row_sums(self._weighted(values, labels), mask)

    def _weighted(self, values: Any, labels: Any) -> Any:
        if self.class_weights is None:
            return values
        if self.kind == "categorical":
            labels = tf.argmax(labels, axis=-1)
        labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(values))
        return values * tf.gather(tf.cast(self.class_weights, values.dtype), labels)


def loss_quantity(loss: Any, class_weights: Mapping[int, float] | None) -> Any:
    """The loss that a user names, gives as an object or as a function."""
    if loss is None:
        raise ConfigError(
            "loss is missing: pass loss=..., or compile the model with one. "
            "For example loss=keras.losses.SparseCategoricalCrossentropy("
            "from_logits=True)."
        )
    if isinstance(loss, list | tuple | dict):
        raise ConfigError(
            f"loss is a {type(loss).__name__}, but models with several outputs "
            "are not supported; give the model one output and one loss."
        )
    resolved = keras.losses.get(loss)
    function = getattr(resolved, "call", resolved)
    kind = _kind(resolved)
    return KerasQuantity(
        function=function,
        name=_name(resolved),
        kind=kind,
        from_logits=_from_logits(resolved),
        class_weights=_class_table(class_weights, kind),
    )


def metric_quantities(metrics: Any, loss: KerasQuantity) -> dict[str, Any]:
    """The metrics that a user names, by name; accuracy where none is named."""
    if metrics is None:
        metrics = [] if loss.kind == "other" else ["accuracy"]
    if isinstance(metrics, Mapping):
        metrics = list(metrics.values())
    return dict(_metric(metric, loss) for metric in _flat(metrics))


def _metric(metric: Any, loss: KerasQuantity) -> tuple[str, PerExampleFunction]:
    if metric in _SUM_NAMES:
        return "accuracy", KerasQuantity(_accuracy(loss), "accuracy", loss.kind)
    resolved = keras.metrics.get(metric)
    name = metric if isinstance(metric, str) else _name(resolved)
    if isinstance(resolved, keras.metrics.MeanMetricWrapper):
        function, fixed = resolved._fn, resolved._fn_kwargs
        return name, KerasQuantity(lambda y, p: function(y, p, **fixed), name)
    if isinstance(resolved, keras.metrics.Metric) or not callable(resolved):
        raise ConfigError(
            f"metrics contains {name!r}, which is no mean over rows, so it cannot be "
            "summed over clients; evaluation reports ROC-AUC, PR-AUC and KS by itself."
        )
    return name, KerasQuantity(resolved, name)


def _accuracy(loss: KerasQuantity) -> Callable[[Any, Any], Any]:
    threshold = 0.0 if loss.from_logits else 0.5

    def hits(labels: Any, outputs: Any) -> Any:
        if loss.kind == "categorical":
            labels = tf.argmax(labels, axis=-1)
        if loss.kind == "binary" or outputs.shape[-1] == 1:
            right = tf.equal(outputs > threshold, tf.cast(labels, outputs.dtype) > 0.5)
            return tf.reduce_mean(tf.cast(right, tf.float32), axis=-1)
        predicted = tf.argmax(outputs, axis=-1, output_type=tf.int32)
        labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(predicted))
        return tf.cast(tf.equal(predicted, labels), tf.float32)

    return hits


def _parts(outputs: Any) -> tuple[Any, Any]:
    if isinstance(outputs, MaskedOutputs):
        return outputs.values, outputs.mask
    return tf.convert_to_tensor(outputs), None


def _matched(labels: Any, outputs: Any) -> Any:
    """Labels as Keras hands them to a loss: one axis for one output, and floats."""
    labels = tf.convert_to_tensor(labels)
    single = outputs.shape[-1] == 1 and labels.shape.rank == outputs.shape.rank - 1
    labels = labels[..., tf.newaxis] if single else labels
    return tf.cast(labels, outputs.dtype) if labels.dtype.is_floating else labels


def _row_sums(values: Any, mask: Any) -> PerExample:
    inner = list(range(1, values.shape.rank))
    if mask is None:
        totals = tf.reduce_mean(values, inner)
        return PerExample(totals, tf.ones_like(totals))
    mask = tf.cast(mask, values.dtype)
    return PerExample(tf.reduce_sum(values * mask, inner), tf.reduce_sum(mask, inner))


def _kind(loss: Any) -> str:
    name = _name(loss).lower().replace("_", "")
    for kind in ("sparse", "binary", "categorical"):
        if kind in name:
            return kind
    return "other"


def _name(thing: Any) -> str:
    name = getattr(thing, "name", None) or getattr(thing, "__name__", None)
    return str(name or type(thing).__name__)


def _from_logits(loss: Any) -> bool:
    if loss in (losses.sparse_cross_entropy, losses.binary_cross_entropy):
        return True
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    return bool(config.get("from_logits", False))


def _class_table(class_weights: Mapping[int, float] | None, kind: str) -> Any:
    if class_weights is None:
        return None
    if kind == "other":
        raise ConfigError(
            "class_weights needs a classification loss (cross-entropy) to know which "
            "class a row has; use the rows' own weights instead."
        )
    classes = sorted(class_weights)
    if classes != list(range(len(classes))):
        raise ConfigError(
            f"class_weights must name every class from 0 on, got {classes}."
        )
    return np.array([class_weights[i] for i in classes], np.float64)


def _flat(metrics: Any) -> Iterable[Any]:
    for metric in metrics:
        if isinstance(metric, list | tuple):
            yield from _flat(metric)
        elif metric is not None:
            yield metric
