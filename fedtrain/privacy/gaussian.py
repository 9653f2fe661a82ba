"""Client-level DP: each client's whole update is clipped, the server noises the sum.

Source: McMahan et al. (2018), Learning differentially private recurrent language
models, https://arxiv.org/abs/1710.06963, Algorithm 1.
"""

from typing import Any

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, nothing, unchanged
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds, validate
from fedtrain.core.mechanism import Mechanism
from fedtrain.privacy import events
from fedtrain.privacy.clipping import clip_to_norm


def gaussian_mechanism(*, clipping_norm: float, noise_multiplier: float) -> Aggregator:
    """Clips each client's update and adds Gaussian noise to the sum.

    Put it after the mean in a chain: ``chain(mean_over_expected_cohort(100),
    gaussian_mechanism(...))``, so the server adds the noise before it divides.

    Args:
      clipping_norm: L2 bound on a client's update, over all leaves (the moving averages
        of normalisation layers included) as one vector.
      noise_multiplier: Noise on the sum over ``clipping_norm``.

    Guarantees:
      The noised sum is differentially private for one client with event
      ``Gaussian(noise_multiplier)``. A zero update stays zero; a non-finite one becomes
      zero and counts as taking part. Metrics pass through unprotected.
    """
    mechanism = client_mechanism("gaussian", clipping_norm, noise_multiplier)

    def encode(
        shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        del shared, seed
        clipped, _ = clip_to_norm(contribution.update, clipping_norm)
        return without_weight(contribution, clipped), client_state

    return Aggregator(
        init=nothing,
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=_noise_on_sum(mechanism),
        mechanisms=(mechanism,),
    )


def noise_on_bounded_sum(mechanism: Mechanism) -> Aggregator:
    """The server's half where the client work itself bounds each unit's effect."""
    return Aggregator(
        init=nothing,
        share=nothing,
        init_client=nothing,
        encode=unchanged,
        decode=_noise_on_sum(mechanism),
        mechanisms=(mechanism,),
    )


def client_mechanism(
    name: str, clipping_norm: float, noise_multiplier: float, **details: Any
) -> Mechanism:
    """The description of client-level Gaussian noise, added by the server."""
    validate.positive(clipping_norm=clipping_norm, noise_multiplier=noise_multiplier)
    return Mechanism(
        name=name,
        unit="client",
        trust="central",
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        noise_stddev_on_sum=noise_multiplier * clipping_norm,
        dp_event=events.gaussian(noise_multiplier),
        details=tuple(details.items()),
    )


def without_weight(contribution: Contribution, update: Any) -> Contribution:
    """``contribution`` with ``update`` and no weight: a number of rows is private."""
    return contribution._replace(
        update=update, weight=tf.zeros_like(contribution.weight)
    )


def _noise_on_sum(mechanism: Mechanism) -> Any:
    def decode(
        state: Any, total: Contribution, seed: seeds.Seed
    ) -> tuple[Contribution, Any]:
        noise = seeds.normal_like(
            total.update, seed, stddev=mechanism.noise_stddev_on_sum
        )
        return total._replace(update=nests.add(total.update, noise)), state

    return decode
