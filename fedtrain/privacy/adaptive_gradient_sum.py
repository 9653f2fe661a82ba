"""A clipping norm for rows that follows a quantile of their gradients' norms.

The quantile's count is one more coordinate of the same noised sum: a unit moves it by
half of ``scale`` besides moving the gradients' sum, and the mechanism's bound is on
both together. So it is paid for by the noise that is there anyway.

Source: Andrew et al. (2021), Differentially private learning with adaptive clipping,
https://arxiv.org/abs/1905.03871, Algorithm 1, with rows in place of clients.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds, validate
from fedtrain.core.errors import PrivacyError
from fedtrain.privacy.adaptive_clipping import FEWEST_UNITS
from fedtrain.privacy.clipping import bounded_norm

_COUNT_NOISE = 1.0 / 20.0


class QuantileQuery(NamedTuple):
    """How the count of unclipped units shares the sum's sensitivity.

    Attributes:
      initial_clipping_norm: Of a unit's gradient, in the first round.
      scale: What the count is multiplied by, in clipping norms.
      expected_count: Public denominator: expected units in a sum.
      unclipped_quantile: Share of units that should stay unclipped.
      learning_rate: Of the logarithm of the norm.
    """

    initial_clipping_norm: float
    scale: float
    expected_count: float
    unclipped_quantile: float
    learning_rate: float = 0.2


def quantile_query(
    *,
    initial_clipping_norm: float,
    noise_multiplier: float,
    expected_count: float,
    unclipped_quantile: float,
) -> QuantileQuery:
    """A query whose count has noise of about a twentieth of the expected units.

    That is the noise that is counted on. With shares of more clients than are counted
    on as honest, a sum's is larger by the root of clients over honest ones.

    Raises:
      PrivacyError: With fewer than 100 expected units the quantile is mostly noise.
    """
    validate.positive(
        initial_clipping_norm=initial_clipping_norm,
        noise_multiplier=noise_multiplier,
        expected_count=expected_count,
    )
    validate.probability(unclipped_quantile=unclipped_quantile)
    if expected_count < FEWEST_UNITS:
        raise PrivacyError(
            f"A sum is expected to hold {expected_count:g} units: adaptive clipping "
            f"counts which of them are clipped and needs at least {FEWEST_UNITS}. Use "
            'larger batches, or mechanism = "discrete_gaussian" with a fixed norm.'
        )
    scale = noise_multiplier / (_COUNT_NOISE * expected_count)
    return QuantileQuery(
        initial_clipping_norm, scale, expected_count, unclipped_quantile
    )


def adaptive_norm(query: QuantileQuery) -> Aggregator:
    """Brings sums clipped to this round's norm to the scale of the first round's.

    Put it before ``fixed_point_sum`` of a mechanism that bounds a unit's gradient and
    its part of the count together (``joint_norm``). Contributions bring the centred
    count of their units, as ``clipped_sum_and_count`` gives it, first in ``extras``.
    """

    def init(weights: Any) -> Any:
        del weights
        return tf.constant(query.initial_clipping_norm, tf.float32)

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        count, *others = contribution.extras
        norm = bounded_norm(shared, query.initial_clipping_norm)
        update = nests.scale(contribution.update, query.initial_clipping_norm / norm)
        # Float64: scaling a large count in float32 would round it.
        scale = query.scale * query.initial_clipping_norm
        scaled = tf.cast(count, tf.float64) * scale
        encoded = contribution._replace(update=update, extras=(scaled, *others))
        return encoded, client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        *extras, scaled = total.extras
        update = nests.scale(total.update, state / query.initial_clipping_norm)
        count = scaled / (query.scale * query.initial_clipping_norm)
        unclipped = count / query.expected_count + 0.5
        change = -query.learning_rate * (unclipped - query.unclipped_quantile)
        decoded = total._replace(update=update, extras=tuple(extras))
        # One noisy count moves it by a fifth at most.
        factor = tf.exp(tf.clip_by_value(change, -0.2, 0.2))
        return decoded, bounded_norm(state * factor, query.initial_clipping_norm)

    return Aggregator(
        init=init,
        share=lambda state: state,
        init_client=nothing,
        encode=encode,
        decode=decode,
    )
