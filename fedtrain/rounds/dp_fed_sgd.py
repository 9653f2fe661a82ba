"""DP-FedSGD as a round: rows or entities protected, the server adds the noise."""

from typing import Any

from fedtrain.models.model import Model
from fedtrain.optimizers.optimizer import Optimizer
from fedtrain.privacy.gradient_sum import integer_gradient_sum, private_gradient_sum
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.rounds.round import Round, averaging_round


def dp_fed_sgd(model: Model, server_optimizer: Optimizer, **options: Any) -> Round:
    """One noised step over the batches of a cohort (unit example or entity).

    Args:
      model: What is trained.
      server_optimizer: Takes the noised mean of clipped gradients.
      **options: Of ``private_gradient_sum``: ``clipping_norm``, ``noise_multiplier``,
        ``sampling_rate``, ``expected_count``, ``unit`` and so on.
    """
    work, aggregator = private_gradient_sum(model, **options)
    return averaging_round(
        work,
        aggregator=aggregator,
        server_optimizer=server_optimizer,
        name="dp_fed_sgd",
    )


def integer_fed_sgd(
    model: Model,
    server_optimizer: Optimizer,
    mechanism: IntegerGaussian,
    **options: Any,
) -> Round:
    """The same in whole numbers modulo 2^32: for secure aggregation, or a release.

    Args:
      model: What is trained.
      server_optimizer: Takes the noised mean of clipped gradients.
      mechanism: Bound, grid and noise; its trust says who adds it.
      **options: Of ``integer_gradient_sum``: ``expected_count``,
        ``max_rows_per_entity``, ``query``, ``metrics``.
    """
    work, aggregator = integer_gradient_sum(model, mechanism, **options)
    return averaging_round(
        work,
        aggregator=aggregator,
        server_optimizer=server_optimizer,
        name="integer_fed_sgd",
    )
