"""Only the largest numbers of an update are sent; what was left out is sent later.

Source: Stich et al. (2018), Sparsified SGD with memory,
https://arxiv.org/abs/1809.07599, Algorithm 1; Lin et al. (2018), Deep gradient
compression (layer by layer).
"""

import math
from typing import Any

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds, validate
from fedtrain.core.packing import Packing


def top_k_with_error_feedback(kept_fraction: float) -> Aggregator:
    """Sends the largest numbers of each leaf, and keeps the rest for the next time.

    The rest is the client's state: it stays with the client and is added to its next
    update. Put the stage last in a chain.

    Args:
      kept_fraction: Share of each leaf's numbers that is sent, in (0, 1]; at least one
        number of each leaf.

    Guarantees:
      What was sent and what is kept add up to the update and what was kept before, to
      the bit. One contribution by itself is not right on average. An update that is not
      finite is sent as such, and leaves what is kept as it was.
    """
    validate.fraction(kept_fraction=kept_fraction)

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        owed = nests.add(contribution.update, client_state)
        finite = nests.all_finite(owed)
        sent = tf.nest.map_structure(lambda leaf: _largest(leaf, finite, kept), owed)
        left = nests.where(finite, nests.subtract(owed, sent), client_state)
        return contribution._replace(update=sent), left

    def kept(leaf: Any) -> int:
        return math.ceil(kept_fraction * math.prod(leaf.shape))

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        return total, state

    return Aggregator(
        init=nothing,
        share=nothing,
        init_client=lambda weights: nests.zeros_like(nests.to_tensors(weights)),
        encode=encode,
        decode=decode,
        packings=lambda update: tf.nest.map_structure(
            lambda leaf: Packing(num_kept=kept(leaf)), update
        ),
    )


def _largest(leaf: tf.Tensor, finite: tf.Tensor, kept: Any) -> tf.Tensor:
    """``leaf`` with zeros in all but the places of its largest numbers in size."""
    flat = tf.reshape(leaf, [-1])
    sizes = tf.where(finite, tf.abs(flat), tf.zeros_like(flat))
    places = tf.math.top_k(sizes, k=kept(leaf), sorted=False).indices
    not_a_number = tf.constant(float("nan"), leaf.dtype)
    values = tf.where(finite, tf.gather(flat, places), not_a_number)
    sent = tf.scatter_nd(places[:, tf.newaxis], values, tf.shape(flat))
    return tf.reshape(sent, leaf.shape)
