"""A model as pure functions of its weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.core.seeds import Seed


class ModelWeights(NamedTuple):
    """What a model knows.

    Attributes:
      trainable: Nest of float tensors that optimizers change.
      state: Nest of float tensors that only the model changes (moving averages of
        normalisation layers). Averaged like the rest, never touched by an optimizer.
    """

    trainable: Any
    state: Any = ()


class Batch(NamedTuple):
    """Some rows of one client, padded to a common size.

    Attributes:
      features: Nest of tensors [batch, ...].
      labels: Tensor [batch, ...].
      weights: Float tensor [batch]: a row's weight in the loss (class and sample
        weights), 0 where the row is padding.
      mask: Float tensor [batch]: 1 for a real row, 0 for padding.
    """

    features: Any
    labels: Any
    weights: Any
    mask: Any


class MaskedOutputs(NamedTuple):
    """Outputs of a model that masks places of a row, such as padded tokens.

    Attributes:
      values: Tensor [batch, time, ...].
      mask: Bool tensor [batch, time]: false where a place does not count.
    """

    values: Any
    mask: Any


def without_trailing_padding(batch: Batch) -> Batch:
    """``batch`` up to its last real row; one row of padding where there is none.

    A layer that looks at the whole batch (BatchNorm) would count padding as rows, and
    runtimes pad to different sizes.
    """
    places = tf.range(1, tf.shape(batch.mask)[0] + 1)
    last = tf.reduce_max(tf.where(batch.mask > 0, places, tf.ones_like(places)))
    return Batch(*tf.nest.map_structure(lambda leaf: leaf[:last], tuple(batch)))


class ForwardPass(NamedTuple):
    """What a model computes for a batch.

    Attributes:
      outputs: Tensor [batch, ...], or ``MaskedOutputs``.
      state: The new ``ModelWeights.state``.
      penalty: Scalar, the weights' regularisation losses.
    """

    outputs: Any
    state: Any
    penalty: Any


class PerExample(NamedTuple):
    """A quantity that adds up over rows: its mean is sum(total) / sum(count).

    Attributes:
      total: Tensor [batch], summed over whatever a row holds (its tokens, say).
      count: Tensor [batch], the number of things summed: 1, or a row's real tokens.
    """

    total: Any
    count: Any


PerExampleFunction = Callable[[Any, Any], PerExample]


class Model(NamedTuple):
    """A model as functions of its weights.

    Attributes:
      init: ``init(seed)`` -> ``ModelWeights``.
      forward: ``forward(weights, features, *, training, seed)`` -> ``ForwardPass``;
        ``training`` is a Python bool; the seed draws dropout masks.
      loss: ``loss(labels, outputs)`` -> ``PerExample``.
      metrics: Further additive quantities by name, such as ``"accuracy"``.
      mixing_layers: Names of layers whose output for one row depends on other rows of
        the batch (BatchNorm). Refused under example- and entity-level DP.
      name: For messages and reports.
    """

    init: Callable[[Seed], ModelWeights]
    forward: Callable[..., ForwardPass]
    loss: PerExampleFunction
    metrics: Mapping[str, PerExampleFunction]
    mixing_layers: tuple[str, ...] = ()
    name: str = "model"


def output_values(outputs: Any) -> Any:
    """The outputs as a tensor [batch, ...], without a mask."""
    return outputs.values if isinstance(outputs, MaskedOutputs) else outputs


def mean_loss(model: Model, batch: Batch, outputs: Any) -> tf.Tensor:
    """Scalar mean loss over the real rows of a batch; 0 for a batch of padding.

    A row's weight multiplies its total but not its count, as in Keras.
    """
    losses = model.loss(batch.labels, outputs)
    mask = tf.cast(batch.mask, losses.total.dtype)
    weights = mask * tf.cast(batch.weights, losses.total.dtype)
    count = tf.reduce_sum(mask * tf.cast(losses.count, losses.total.dtype))
    return tf.reduce_sum(weights * losses.total) / tf.maximum(count, 1.0)


def sums(model: Model, batch: Batch, outputs: Any) -> dict[str, PerExample]:
    """Totals and counts of loss and metrics over the real rows of ``batch``."""
    functions = {"loss": model.loss, **model.metrics}
    values = {name: of(batch.labels, outputs) for name, of in functions.items()}
    return {name: _masked_sum(value, batch.mask) for name, value in values.items()}


def _masked_sum(values: PerExample, mask: Any) -> PerExample:
    return PerExample(
        *(
            tf.reduce_sum(tf.cast(mask, tf.float32) * tf.cast(v, tf.float32))
            for v in values
        )
    )
