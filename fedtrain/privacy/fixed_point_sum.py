"""Noise in whole numbers as a stage: on each client's share, or on the server's sum.

Clients encode: everything in a contribution becomes one vector, is clipped, brought to
the grid and, with trust distributed, noised. What leaves a client, and its sum, are
whole numbers modulo 2^32 (uint32 leaves), which is what secure aggregation masks. The
server decodes: with trust central it adds the noise first.
"""

import hashlib
import math
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing
from fedtrain.aggregation.fixed_point import Ring, from_ring, to_ring
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.noise_source import SEEDED, Noise


def fixed_point_sum(mechanism: IntegerGaussian, *, noise: Noise = SEEDED) -> Aggregator:
    """Contributions and their sum in whole numbers modulo 2^32, with exact noise.

    Put it last in a chain, after the mean: the server then adds noise and goes back to
    real numbers before it divides. What stages before it pushed onto ``extras`` is part
    of the vector and of its norm. Numbers are drawn by Python on the host, so it runs
    eagerly or in a graph of the same process, not under XLA.

    Args:
      mechanism: Bound, grid and noise.
      noise: ``SEEDED`` for simulations; ``ReleasedNoise(key)`` of a partner (trust
        distributed) or of the server (trust central). With ``NOISE_OF_PARTNERS``, which
        only describes, contributions are zeros whatever is encoded.

    Guarantees:
      Those of ``mechanism``. The sum of contributions does not depend on their order or
      on the machine, to the bit.
    """

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared
        terms = (contribution.update, contribution.extras)
        encoded = tf.numpy_function(
            partial(_encoded, mechanism, noise),
            [_flat(terms), seed],
            tf.uint32,
            stateful=False,
        )
        update, extras = _packed_like(encoded, terms)
        weight = tf.zeros_like(contribution.weight)
        return Contribution(update, weight, contribution.metrics, extras), client_state

    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        terms = (total.update, total.extras)
        decoded = tf.numpy_function(
            partial(_decoded, mechanism, noise),
            [_flat(terms), seed],
            tf.float32,
            stateful=False,
        )
        update, extras = _packed_like(decoded, terms)
        return total._replace(update=update, extras=extras), state

    return Aggregator(
        init=_init,
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=decode,
        mechanisms=(mechanism.mechanism(*_source(noise)),),
        is_modular=True,
        released=lambda source: fixed_point_sum(mechanism, noise=source),
    )


def ring_vector(contribution: Contribution) -> Ring:
    """Everything in an encoded contribution as one vector, which may be masked."""
    return np.asarray(_flat((contribution.update, contribution.extras)))


def from_ring_vector(total: Ring, *, like: Contribution) -> Contribution:
    """The inverse of ``ring_vector``, of a sum.

    Args:
      total: uint32, modulo 2^32.
      like: Any client's encoded contribution.
    """
    terms = (like.update, like.extras)
    update, extras = _packed_like(tf.convert_to_tensor(total), terms)
    return like._replace(update=update, extras=extras)


def _source(noise: Noise) -> tuple[tuple[str, Any], ...]:
    return tuple(detail for detail in noise.details if detail[0] == "noise_source")


def _init(weights: Any) -> tuple[()]:
    types = {tf.as_dtype(leaf.dtype).name for leaf in tf.nest.flatten(weights)}
    if types - {"float32"}:
        raise ConfigError(
            "Whole numbers modulo 2^32 stand for float32 weights; the model has "
            f"{', '.join(sorted(types))}. Build it in float32."
        )
    return ()


def _encoded(
    mechanism: IntegerGaussian, noise: Noise, vector: Any, seed: seeds.HostSeed
) -> Ring:
    if not noise.can_draw:
        return np.zeros(mechanism.grid.num_weights, np.uint32)
    whole = mechanism.grid.encode(
        vector,
        clipping_norm=mechanism.clipping_norm,
        source=noise.words(seed, "rounding"),
    )
    if mechanism.trust == "central":
        return to_ring(whole)
    return mechanism.noised(to_ring(whole), noise.words(seed, "share of noise"))


def _decoded(
    mechanism: IntegerGaussian, noise: Noise, total: Ring, seed: seeds.HostSeed
) -> Any:
    if mechanism.trust == "central":
        # Another sum never meets the same noise, whatever its seed.
        of_sum = hashlib.sha256(total.tobytes()).hexdigest()
        source = noise.words(seed, f"noise on {of_sum}")
        total = mechanism.noised(total.copy(), source)
    real = mechanism.grid.decode(from_ring(total), mechanism.clipping_norm)
    return real.astype(np.float32)


def _flat(terms: Any) -> tf.Tensor:
    """All leaves as one vector; float64 if one is, whose sums float32 would round."""
    leaves = [tf.reshape(leaf, [-1]) for leaf in tf.nest.flatten(terms)]
    if any(leaf.dtype == tf.float64 for leaf in leaves):
        leaves = [tf.cast(leaf, tf.float64) for leaf in leaves]
    return tf.concat(leaves, 0)


def _packed_like(vector: Any, terms: Any) -> Any:
    leaves = tf.nest.flatten(terms)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    parts = tf.split(tf.ensure_shape(vector, [sum(sizes)]), sizes)
    shaped = [
        tf.reshape(part, leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
    ]
    return tf.nest.pack_sequence_as(terms, shaped)
