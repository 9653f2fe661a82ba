"""Updates rounded at random to a coarse grid: one byte, or half of one, for a number.

Source: Alistarh et al. (2017), QSGD, https://arxiv.org/abs/1610.02132, section 3.1;
Suresh et al. (2017), https://arxiv.org/abs/1611.00429, sections 2.2 and 3, for the
rotation that belongs before it.
"""

from typing import Any, Literal, NamedTuple

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.aggregation.rotation import check_one_type
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds, validate
from fedtrain.core.packing import Packing


class Quantised(NamedTuple):
    """An update on a grid. Its sum over clients has a sum of steps, which says nothing.

    Attributes:
      step: The grid's, one number for the whole update.
      values: The update: whole multiples of ``step``.
    """

    step: Any
    values: Any


def stochastic_quantisation(num_bits: Literal[4, 8]) -> Aggregator:
    """Rounds each number up or down to a grid, at random, right on average.

    The largest number of the update in size is 127 steps (8 bits) or 7 steps (4 bits)
    away from zero. Put ``random_rotation(...)`` before it, or a single large number
    leaves a grid too coarse for all others; and put it last in a chain.

    Args:
      num_bits: 8 or 4: what a number takes on the wire.

    Guarantees:
      The mean of the result over the client's seeds is the update, up to float
      rounding; each number moves by less than a step. Rounding may lengthen an update:
      a bound on its norm no longer holds, so that noise calibrated to such a bound is
      refused beside it. A zero update stays zero, one that is not finite stays so.
    """
    validate.one_of({"4", "8"}, num_bits=str(num_bits))
    packing = Packing(num_bits=num_bits)

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared
        update = _rounded(contribution.update, packing.most, seed)
        return contribution._replace(update=update), client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del seed
        return total._replace(update=total.update.values), state

    def init(weights: Any) -> tuple[()]:
        check_one_type(weights)
        return ()

    def packings(update: Quantised) -> Quantised:
        values = tf.nest.map_structure(lambda _: packing, update.values)
        return Quantised(step=None, values=values)

    return Aggregator(
        init=init,
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=decode,
        packings=packings,
    )


def _rounded(update: Any, most: int, seed: seeds.Seed) -> Quantised:
    leaves = tf.nest.flatten(update)
    step = _step(leaves, most)
    values = []
    for i, leaf in enumerate(leaves):
        own = tf.cast(step, leaf.dtype)
        uniform = seeds.hashed_uniform(leaf.shape, seeds.fold(seed, i), leaf.dtype)
        exact = tf.math.divide_no_nan(leaf, own)
        below = tf.floor(exact)
        # Compared with the fraction, not added to it: a sum would be rounded.
        multiples = below + tf.cast(uniform < exact - below, leaf.dtype)
        values.append(tf.clip_by_value(multiples, -most, most) * own)
    return Quantised(step, tf.nest.pack_sequence_as(update, values))


def _step(leaves: list[Any], most: int) -> tf.Tensor:
    """The largest size over ``most``; NaN where a number is not finite."""
    filled = [leaf for leaf in leaves if leaf.shape.num_elements()]
    if not filled:
        return tf.constant(0.0)
    largest = tf.stack([tf.reduce_max(tf.abs(leaf)) for leaf in filled])
    step = tf.reduce_max(largest) / tf.cast(most, filled[0].dtype)
    not_a_number = tf.constant(float("nan"), step.dtype)
    return tf.where(nests.all_finite(leaves), step, not_a_number)
