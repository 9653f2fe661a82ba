"""What of a round crosses the wire: the leaves of two nests, in a fixed order."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, Contribution
from fedtrain.models.model import ModelWeights
from fedtrain.privacy.fixed_point_sum import ring_vector
from fedtrain.rounds.round import Round
from fedtrain.rounds.runtime import empty_total
from fedtrain.wire.arrays import Array, ArraySpec


class Crossing(NamedTuple):
    """The two nests of a round that cross the wire.

    Attributes:
      broadcast: One, to say how leaves are packed.
      contribution: One, of zeros that take no memory until they are written to.
    """

    broadcast: Broadcast
    contribution: Contribution


def crossing_of(round_: Round, weights: ModelWeights) -> Crossing:
    """What crosses the wire in each round that starts from such ``weights``."""
    message = round_.broadcast(round_.init(weights))
    return Crossing(message, empty_contribution(round_, message))


def empty_contribution(round_: Round, message: Broadcast) -> Contribution:
    """The sum of no contributions, of zeros that take no memory until written to.

    What a client computes is traced, never run: it would take several models.
    """
    traced = tf.function(
        partial(empty_total, round_.client_work), autograph=False
    ).get_concrete_function(tf.nest.map_structure(tf.TensorSpec.from_tensor, message))
    empty: Contribution = tf.nest.map_structure(_zeros, traced.structured_outputs)
    return empty


def specs(nest: Any) -> tuple[ArraySpec, ...]:
    """Shapes and types of the leaves of ``nest``, in their order on the wire."""
    return tuple(ArraySpec.of(array) for array in leaves(nest))


def contribution_specs(
    round_: Round, contribution: Contribution
) -> tuple[ArraySpec, ...]:
    """``specs`` of what a client sends in ``round_``, as short as its stages allow.

    Where contributions are masked it is one vector of whole numbers and nothing else.
    """
    if is_masked(round_):
        return specs(ring_vector(contribution))
    plain = tf.nest.map_structure(lambda _: None, contribution)
    packings = plain._replace(update=round_.packings(contribution.update))
    pairs = zip(leaves(contribution), tf.nest.flatten(packings), strict=True)
    return tuple(ArraySpec.of(array, packing) for array, packing in pairs)


def is_masked(round_: Round) -> bool:
    """Whether a contribution may leave only behind masks: its noise is a share."""
    return any(mechanism.trust == "distributed" for mechanism in round_.mechanisms)


def leaves(nest: Any) -> list[Array]:
    """The leaves of ``nest`` as arrays, in their order on the wire."""
    return [np.asarray(leaf) for leaf in tf.nest.flatten(nest)]


def packed(arrays: Sequence[Array], *, like: Any) -> Any:
    """``arrays``, as ``leaves`` gave them, in the structure of ``like``."""
    return tf.nest.pack_sequence_as(like, [tf.constant(array) for array in arrays])


def _zeros(spec: Any) -> Array:
    return np.zeros(spec.shape, spec.dtype.as_numpy_dtype)


def nest_sha256(nest: Any) -> str:
    """SHA-256 of all leaves of ``nest``, in hexadecimal."""
    digest = hashlib.sha256()
    for leaf in leaves(nest):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
