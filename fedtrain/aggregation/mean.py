"""Means: weighted by rows, unweighted, and over a public expected cohort."""

from typing import Any

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds, validate


def weighted_mean() -> Aggregator:
    """Sum of ``weight * update`` over sum of ``weight``; zero if no client answered.

    Source: McMahan et al. (2017), Algorithm 1. The weights' exact sum is revealed.
    """

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        update = nests.scale(contribution.update, contribution.weight)
        return contribution._replace(update=update), client_state

    return _divided_by_weight(encode)


def unweighted_mean() -> Aggregator:
    """Sum of updates over the number of clients that answered."""

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        weight = tf.ones_like(contribution.weight)
        return contribution._replace(weight=weight), client_state

    return _divided_by_weight(encode)


def mean_over_expected_cohort(
    expected_cohort_size: float, *, max_weight: float | None = None
) -> Aggregator:
    """Sum of updates over a fixed, public number of clients.

    The denominator does not depend on who answered, so the sensitivity of the mean is
    that of one contribution; a lost client pulls the mean towards zero.

    Args:
      expected_cohort_size: The public denominator; with ``max_weight``, of clients of
        that weight.
      max_weight: If given, updates are multiplied by ``weight / max_weight``, at most
        1, before any later stage clips them.
    """
    validate.positive(expected_cohort_size=expected_cohort_size)
    validate.positive(max_weight=1.0 if max_weight is None else max_weight)

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        update = contribution.update
        if max_weight is not None:
            factor = tf.clip_by_value(contribution.weight / max_weight, 0.0, 1.0)
            update = nests.scale(update, factor)
        weight = tf.zeros_like(contribution.weight)
        return contribution._replace(update=update, weight=weight), client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        update = nests.scale(total.update, 1.0 / expected_cohort_size)
        return total._replace(update=update), state

    return Aggregator(
        init=nothing, share=nothing, init_client=nothing, encode=encode, decode=decode
    )


def _divided_by_weight(encode: Any) -> Aggregator:
    return Aggregator(
        init=nothing,
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=_divide_by_weight,
        reveals=frozenset({"weight"}),
    )


def _divide_by_weight(
    state: Any, total: Contribution, seed: seeds.Seed
) -> tuple[Contribution, Any]:
    del seed
    factor = tf.math.divide_no_nan(1.0, total.weight)
    return total._replace(update=nests.scale(total.update, factor)), state
