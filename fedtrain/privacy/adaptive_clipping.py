"""A clipping norm that follows a quantile of the updates' norms, privately.

Source: Andrew et al. (2021), Differentially private learning with adaptive clipping,
https://arxiv.org/abs/1905.03871, Algorithm 1 and Theorem 1.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds, validate
from fedtrain.core.errors import PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.privacy.clipping import bounded_norm, clip_to_norm
from fedtrain.privacy.gaussian import client_mechanism, without_weight

FEWEST_UNITS = 100


class AdaptiveState(NamedTuple):
    """The clipping norm of the next round, float64 scalar."""

    clipping_norm: Any


def adaptive_gaussian_mechanism(
    *,
    initial_clipping_norm: float,
    noise_multiplier: float,
    expected_cohort_size: float,
    unclipped_quantile: float = 0.5,
    clipping_learning_rate: float = 0.2,
) -> Aggregator:
    """Clips to a norm that adapts each round; noises the sum and the quantile query.

    The two queries together cost what one Gaussian of ``noise_multiplier`` costs: the
    count of unclipped clients takes noise of a twentieth of the cohort, and the sum
    takes slightly more than ``noise_multiplier`` times the norm to make up for it.

    Args:
      initial_clipping_norm: Of the first round. The norm is shared with the clients.
      noise_multiplier: Of both queries together; the sum's own is in the mechanism's
        details, and its ``noise_stddev_on_sum`` is that of the first round.
      expected_cohort_size: Public denominator of the quantile query; at least 100.
      unclipped_quantile: Share of clients whose update should stay unclipped.
      clipping_learning_rate: Of the logarithm of the norm.

    Raises:
      PrivacyError: With fewer than 100 expected clients the quantile is mostly noise.
    """
    validate.probability(unclipped_quantile=unclipped_quantile)
    validate.positive(clipping_learning_rate=clipping_learning_rate)
    _refuse_small_cohort(expected_cohort_size)
    count_stddev = expected_cohort_size / 20.0
    sum_multiplier = _sum_multiplier(noise_multiplier, count_stddev)
    mechanism = _mechanism(
        initial_clipping_norm, noise_multiplier, sum_multiplier, count_stddev
    )

    def init(weights: Any) -> AdaptiveState:
        del weights
        return AdaptiveState(tf.constant(initial_clipping_norm, tf.float64))

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        bound = bounded_norm(shared, initial_clipping_norm)
        clipped, norm = clip_to_norm(contribution.update, bound)
        unclipped = tf.cast(norm <= tf.cast(bound, norm.dtype), tf.float32)
        encoded = without_weight(contribution, clipped)
        # Centred, so that one client changes the count by a half, not by one.
        extras = (*contribution.extras, unclipped - 0.5)
        return encoded._replace(extras=extras), client_state

    def decode(
        state: AdaptiveState, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, AdaptiveState]:
        sum_seed, count_seed = tf.unstack(seeds.split(seed, 2))
        *extras, count = total.extras
        stddev = sum_multiplier * state.clipping_norm
        noise = seeds.normal_like(total.update, sum_seed, stddev=stddev)
        count_noise = seeds.normal(
            [], count_seed, stddev=count_stddev, dtype=tf.float64
        )
        noised_count = tf.cast(count, tf.float64) + count_noise
        unclipped = noised_count / expected_cohort_size + 0.5
        change = -clipping_learning_rate * (unclipped - unclipped_quantile)
        noised = nests.add(total.update, noise)
        return (
            total._replace(update=noised, extras=tuple(extras)),
            AdaptiveState(
                bounded_norm(
                    state.clipping_norm * tf.exp(change), initial_clipping_norm
                )
            ),
        )

    return Aggregator(
        init=init,
        share=lambda state: state.clipping_norm,
        init_client=nothing,
        encode=encode,
        decode=decode,
        mechanisms=(mechanism,),
    )


def _sum_multiplier(noise_multiplier: float, count_stddev: float) -> float:
    """The sum's own multiplier, so that both queries together cost the given one."""
    validate.positive(noise_multiplier=noise_multiplier)
    left = noise_multiplier**-2 - (2.0 * count_stddev) ** -2
    if left <= 0.0:
        raise PrivacyError(
            f"noise_multiplier is {noise_multiplier:g}, but the quantile query alone "
            f"costs as much as {2.0 * count_stddev:g}. Use a larger cohort, or the "
            "fixed norm of gaussian_mechanism."
        )
    return 1.0 / math.sqrt(left)


def _mechanism(
    initial_clipping_norm: float,
    noise_multiplier: float,
    sum_multiplier: float,
    count_stddev: float,
) -> Mechanism:
    joint = client_mechanism(
        "adaptive_gaussian",
        initial_clipping_norm,
        noise_multiplier,
        noise_multiplier_of_sum=sum_multiplier,
        noise_stddev_of_unclipped_count=count_stddev,
        noise_stddev_on_sum_is="of round 0; it follows the clipping norm",
    )
    stddev = sum_multiplier * initial_clipping_norm
    return replace(joint, noise_stddev_on_sum=stddev)


def _refuse_small_cohort(expected_cohort_size: float) -> None:
    validate.positive(expected_cohort_size=expected_cohort_size)
    if expected_cohort_size < FEWEST_UNITS:
        raise PrivacyError(
            f"expected_cohort_size is {expected_cohort_size:g}: adaptive clipping "
            f"needs at least {FEWEST_UNITS} clients, or its noised quantile says "
            "little. Use gaussian_mechanism with a fixed clipping_norm."
        )
