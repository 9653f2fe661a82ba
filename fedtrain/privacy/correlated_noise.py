"""Noise that later rounds partly take back, for client-level DP without amplification.

The sum of a round gets noise that is negatively correlated with earlier rounds', so the
model, which adds rounds up, ends with less of it. How much one client can move all
rounds together depends on when it takes part, so the stage is built for a participation
pattern, which the sampler must keep.

Source: Kairouz et al. (2021), Practical and private (deep) learning without sampling or
shuffling (trees, DP-FTRL); Choquette-Choo et al. (2023), banded matrix factorization;
Kalinin and Lampert (2024), https://arxiv.org/abs/2405.13763 (banded square root).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.core.mechanism import Mechanism
from fedtrain.privacy import events
from fedtrain.privacy.clipping import clip_to_norm
from fedtrain.privacy.gaussian import client_mechanism, without_weight
from fedtrain.privacy.participation import (
    Matrix,
    Participation,
    squared_sensitivity_of_one,
)

LONGEST_TREE = 4096
Noise = Callable[[Any, Any, seeds.Seed, float], tuple[Any, Any]]


class BandedState(NamedTuple):
    """The noise of the latest rounds, newest first: a nest of [bands - 1, ...]."""

    past: Any


class TreeState(NamedTuple):
    """Which round it is, and the seed from which all noise of the tree is drawn."""

    round_number: Any
    seed: Any


def banded_mechanism(
    *,
    clipping_norm: float,
    noise_multiplier: float,
    participation: Participation,
    num_bands: int | None = None,
) -> Aggregator:
    """Client-level DP with the banded square-root factorization.

    Args:
      clipping_norm: L2 bound on a client's update.
      noise_multiplier: Of the whole run: one client's participations together cost one
        Gaussian of this multiplier.
      participation: The pattern that the sampler keeps.
      num_bands: At most ``min_separation``, which is the default. One band is
        independent noise.

    Guarantees:
      The server's state holds past noise; clients are shown none of it.
    """
    bands = num_bands or min(participation.min_separation, participation.num_rounds)
    if not 1 <= bands <= participation.min_separation:
        raise ConfigError(
            f"num_bands is {bands}, but must be from 1 to min_separation = "
            f"{participation.min_separation}: otherwise two participations overlap."
        )
    coefficients = square_root_coefficients(bands)
    # Columns at least one band apart have no row in common, so each counts for itself.
    mechanism = _mechanism(
        "banded_matrix_factorization",
        clipping_norm,
        noise_multiplier,
        participation,
        float(np.sum(np.square(coefficients))),
    )

    def init(weights: Any) -> BandedState:
        return BandedState(
            tf.nest.map_structure(
                lambda leaf: tf.zeros([bands - 1, *leaf.shape], leaf.dtype), weights
            )
        )

    def noise(
        state: BandedState, like: Any, seed: seeds.Seed, stddev: float
    ) -> tuple[Any, BandedState]:
        fresh = seeds.normal_like(like, seed, stddev=stddev)
        correlated = tf.nest.map_structure(
            lambda new, past: new - _weighted_sum(coefficients[1:], past),
            fresh,
            state.past,
        )
        past = tf.nest.map_structure(
            lambda new, old: tf.concat([new[tf.newaxis], old], 0)[: bands - 1],
            correlated,
            state.past,
        )
        return correlated, BandedState(past)

    return _stage(init, noise, mechanism)


def tree_mechanism(
    *, clipping_norm: float, noise_multiplier: float, participation: Participation
) -> Aggregator:
    """Client-level DP with binary-tree aggregation of the rounds' noise.

    Args:
      clipping_norm: L2 bound on a client's update.
      noise_multiplier: Of the whole run: one client's participations together cost one
        Gaussian of this multiplier.
      participation: The pattern that the sampler keeps.

    Guarantees:
      After round ``t`` the noises so far add up to those of the tree's nodes that make
      up ``t + 1`` rounds: at most ``log2`` of them. Clients are shown no state. Past
      ``num_rounds`` the tree has no noise left, and the sum is made NaN instead.
    """
    num_rounds = participation.num_rounds
    if num_rounds > LONGEST_TREE:
        raise ConfigError(
            f"num_rounds is {num_rounds}, but a tree is built for at most "
            f"{LONGEST_TREE}; use banded_mechanism."
        )
    of_one = squared_sensitivity_of_one(tree_gram(num_rounds), participation)
    mechanism = _mechanism(
        "tree_aggregation", clipping_norm, noise_multiplier, participation, of_one
    )

    def init(weights: Any) -> TreeState:
        del weights
        return TreeState(tf.constant(0, tf.int32), tf.zeros([2], tf.int32))

    def noise(
        state: TreeState, like: Any, seed: seeds.Seed, stddev: float
    ) -> tuple[Any, TreeState]:
        number = state.round_number
        is_first = tf.equal(number, 0)  # "==" compares objects in TFF's graphs
        base = tf.where(is_first, tf.convert_to_tensor(seed), state.seed)
        levels = num_rounds.bit_length()
        stddev = tf.where(
            number < num_rounds, tf.constant(stddev, tf.float64), math.nan
        )
        now = _tree_noise(like, base, number + 1, levels, stddev)
        before = _tree_noise(like, base, number, levels, stddev)
        return nests.subtract(now, before), TreeState(number + 1, base)

    return _stage(init, noise, mechanism)


def square_root_coefficients(num_bands: int) -> Matrix:
    """First entries (1, 1/2, 3/8, ...) of the all-ones triangle's square root."""
    ratios = [(2 * k - 1) / (2 * k) for k in range(1, num_bands)]
    return np.cumprod([1.0, *ratios])


def tree_gram(num_rounds: int) -> Matrix:
    """For each pair of rounds, how many nodes that are ever released hold both."""
    rounds = np.arange(num_rounds)
    gram = np.zeros([num_rounds, num_rounds])
    for level in range(num_rounds.bit_length()):
        node = rounds >> level
        # A prefix is made of even nodes only, and of complete ones.
        is_released = (node % 2 == 0) & ((node + 1) << level <= num_rounds)
        together = node[:, None] == node[None, :]
        gram += together & is_released[:, None]
    return gram


def _mechanism(
    name: str,
    clipping_norm: float,
    noise_multiplier: float,
    participation: Participation,
    of_one: float,
) -> Mechanism:
    """Noise for ``most`` participations; the event is that of one of them."""
    most = participation.most
    base = client_mechanism(
        name,
        clipping_norm,
        noise_multiplier,
        num_rounds=participation.num_rounds,
        max_participations=most,
    )
    stddev = noise_multiplier * math.sqrt(most * of_one) * clipping_norm
    return Mechanism(
        name=name,
        unit=base.unit,
        trust=base.trust,
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        noise_stddev_on_sum=stddev,
        dp_event=events.gaussian(noise_multiplier * math.sqrt(most)),
        min_separation=participation.min_separation,
        details=base.details,
    )


def _stage(
    init: Callable[[Any], Any], noise: Noise, mechanism: Mechanism
) -> Aggregator:
    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        clipped, _ = clip_to_norm(contribution.update, mechanism.clipping_norm)
        return without_weight(contribution, clipped), client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        added, state = noise(state, total.update, seed, mechanism.noise_stddev_on_sum)
        return total._replace(update=nests.add(total.update, added)), state

    return Aggregator(
        init=init,
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=decode,
        mechanisms=(mechanism,),
    )


def _weighted_sum(coefficients: Matrix, past: tf.Tensor) -> tf.Tensor:
    return tf.tensordot(tf.constant(coefficients, past.dtype), past, axes=1)


def _tree_noise(
    like: Any, base: tf.Tensor, num_done: tf.Tensor, levels: int, stddev: Any
) -> Any:
    """The summed noise of the nodes that make up the first ``num_done`` rounds."""
    total = nests.zeros_like(like)
    for level in range(levels):
        node = tf.bitwise.right_shift(num_done, level)
        seed = seeds.split(tf.stack([base[0] + level, base[1] + node]), 1)[0]
        drawn = seeds.normal_like(like, seed, stddev=stddev)
        total = nests.add(total, nests.scale(drawn, node % 2))
    return total
