"""Loss and metrics of training, from the same noised sum as the gradients.

A row (or an entity, by the mean over its rows) brings its loss and metrics along, each
brought to [0, 1] and scaled so that all of them together are at most ``share`` clipping
norms long. The bound of the mechanism is on a unit's gradient and these together, so
they cost nothing besides slightly more noise on the gradients; the denominator is the
public expected number of units.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.client_work.per_example import row_losses
from fedtrain.core import seeds, validate
from fedtrain.models.model import Batch, Model
from fedtrain.privacy.clipping import sum_by_entity

_UNITS = 2.0**20


class MetricsQuery(NamedTuple):
    """What is asked beside the gradients, and what part of the bound it takes.

    Attributes:
      names: Of the model's metrics; the loss comes before them.
      clipping_norm: Of a unit's gradient, in the first round.
      share: Largest length of a unit's numbers, in clipping norms.
      largest_loss: A row's loss is cut to it.
      expected_count: Public denominator: expected units in a sum.
    """

    names: tuple[str, ...]
    clipping_norm: float
    share: float
    largest_loss: float
    expected_count: float

    @property
    def scale(self) -> float:
        """What each number is multiplied by."""
        return self.clipping_norm * self.share / math.sqrt(1 + len(self.names))


def metrics_query(
    model: Model,
    *,
    clipping_norm: float,
    share: float,
    expected_count: float,
    largest_loss: float = 5.0,
) -> MetricsQuery:
    """The loss and all metrics of ``model``."""
    validate.fraction(share=share)
    validate.positive(
        clipping_norm=clipping_norm,
        expected_count=expected_count,
        largest_loss=largest_loss,
    )
    return MetricsQuery(
        tuple(sorted(model.metrics)), clipping_norm, share, largest_loss, expected_count
    )


def batch_metrics(
    query: MetricsQuery, model: Model, batch: Batch, outputs: Any, rows_per_unit: int
) -> tf.Tensor:
    """Sums over the batch's units of numbers in [0, 1], float64 [k].

    An entity's number is the mean over its rows in the batch, however many they are.
    What is not finite counts as zero. Each number is brought to a multiple of 2^-20
    first and they are added up as whole numbers, so a unit moves the sum by its own
    number exactly, however many units there are.
    """
    rows = [row_losses(model, batch, outputs) / query.largest_loss]
    for name in query.names:
        found = model.metrics[name](batch.labels, outputs)
        counts = tf.maximum(tf.cast(found.count, tf.float32), 1.0)
        rows.append(tf.cast(found.total, tf.float32) / counts)
    whole = tf.stack([_whole_sum(row, batch.mask, rows_per_unit) for row in rows])
    return tf.cast(whole, tf.float64) / _UNITS


def noised_metrics(query: MetricsQuery) -> Aggregator:
    """Scales what the client work has put on top of ``extras``, and reports its mean.

    The state holds the means of the last round's rows (of its expected units), which
    ``reported`` gives by name.
    """

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        *extras, numbers = contribution.extras
        scaled = (*extras, numbers * query.scale)
        return contribution._replace(extras=scaled), client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del state, seed
        *extras, scaled = total.extras
        means = scaled / (query.scale * query.expected_count)
        return total._replace(extras=tuple(extras)), means

    return Aggregator(
        init=lambda weights: tf.zeros([1 + len(query.names)]),
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=decode,
        reported=lambda state: _named(query, state),
    )


def _whole_sum(row: Any, mask: Any, rows_per_unit: int) -> Any:
    """The sum over units of the mean of ``row`` in [0, 1], in units of 2^-20: int64."""
    finite = tf.where(tf.math.is_finite(row), row, tf.zeros_like(row))
    real = tf.cast(mask, row.dtype)
    bounded = tf.clip_by_value(finite, 0.0, 1.0) * real
    means = tf.math.divide_no_nan(
        sum_by_entity(bounded, rows_per_unit), sum_by_entity(real, rows_per_unit)
    )
    return tf.reduce_sum(tf.cast(tf.round(means * _UNITS), tf.int64))


def _named(query: MetricsQuery, means: Any) -> dict[str, float]:
    loss, *others = (float(value) for value in tf.unstack(means))
    named = dict(zip(query.names, others, strict=True))
    return {"noised_loss": loss * query.largest_loss} | {
        f"noised_{name}": value for name, value in named.items()
    }
