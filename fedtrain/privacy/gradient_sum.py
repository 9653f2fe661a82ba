"""DP-FedSGD: a contribution is one Poisson batch's sum of clipped gradients.

With the noise on the server's sum, a row (or a customer) is protected only if its
effect on that sum is bounded. Clipping a client's whole update would bound the client;
so each unit's gradient is clipped and one round is one step.

Source: McMahan et al. (2018), DP-FedSGD, with units inside clients.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
    stateless,
)
from fedtrain.core import nests, validate
from fedtrain.core.errors import PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.models.model import Batch, Model
from fedtrain.privacy import events
from fedtrain.privacy.adaptive_gradient_sum import QuantileQuery, adaptive_norm
from fedtrain.privacy.clipping import bounded_norm
from fedtrain.privacy.dp_sgd import (
    RowUnit,
    refuse_mixing_layers,
    row_batching,
)
from fedtrain.privacy.fixed_point_sum import fixed_point_sum
from fedtrain.privacy.gaussian import noise_on_bounded_sum
from fedtrain.privacy.ghost_clipping import clipped_sum_and_count
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.noise_source import SEEDED, Noise
from fedtrain.privacy.noised_metrics import (
    MetricsQuery,
    batch_metrics,
    noised_metrics,
)


def joint_norm(
    clipping_norm: float, query: QuantileQuery | None, metrics_share: float
) -> float:
    """The bound on a unit's gradient, its part of a count and its metrics together."""
    counted = 0.5 * query.scale if query else 0.0
    return clipping_norm * math.hypot(1.0, counted, metrics_share)


def private_gradient_sum(  # noqa: PLR0913 - one number for each term of the promise
    model: Model,
    *,
    clipping_norm: float,
    noise_multiplier: float,
    sampling_rate: float,
    expected_count: float,
    unit: RowUnit = "example",
    max_rows_per_entity: int = 1,
    max_clients_per_entity: int = 1,
    local_steps: int = 1,
) -> tuple[ClientWork, Aggregator]:
    """Client work and aggregator of DP-FedSGD (trust ``central``).

    Args:
      model: What is trained; layers that mix rows are refused.
      clipping_norm: L2 bound on the gradient of one row (or the sum of an entity's).
      noise_multiplier: Noise on the cohort's sum, over ``clipping_norm``.
      sampling_rate: Of the rows (or entities) of each client: a public constant.
      expected_count: Public denominator: expected units in the cohort's batches.
      unit: ``"example"`` or ``"entity"``.
      max_rows_per_entity: Rows of an entity that a step uses at most.
      max_clients_per_entity: Clients at which one entity may have rows.
      local_steps: Must be 1.

    Raises:
      PrivacyError: With more local steps, or a model that mixes rows.
    """
    _refuse_local_steps(local_steps, unit)
    refuse_mixing_layers(model, unit)
    validate.positive(clipping_norm=clipping_norm, noise_multiplier=noise_multiplier)
    mechanism = Mechanism(
        name="gaussian_on_gradient_sum",
        unit=unit,
        trust="central",
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        noise_stddev_on_sum=noise_multiplier * clipping_norm,
        dp_event=events.mixture(
            noise_multiplier, sampling_rate, max_clients_per_entity
        ),
        details=(
            ("sampling_rate", sampling_rate),
            ("max_clients_per_entity", max_clients_per_entity),
        ),
    )
    batching = row_batching(unit, sampling_rate, 1, max_rows_per_entity)
    work = _gradient_sum(model, batching, clipping_norm, max_rows_per_entity)
    aggregator = chain(
        mean_over_expected_cohort(expected_count), noise_on_bounded_sum(mechanism)
    )
    return work, aggregator


def integer_gradient_sum(  # noqa: PLR0913 - one number for each term of the promise
    model: Model,
    mechanism: IntegerGaussian,
    *,
    expected_count: float,
    max_rows_per_entity: int = 1,
    query: QuantileQuery | None = None,
    metrics: MetricsQuery | None = None,
    noise: Noise = SEEDED,
) -> tuple[ClientWork, Aggregator]:
    """The same in whole numbers modulo 2^32, the noise at the server or in shares.

    Args:
      model: What is trained; layers that mix rows are refused.
      mechanism: Of unit example or entity, its grid made for sums of units.
      expected_count: Public denominator: expected units in the cohort's batches.
      max_rows_per_entity: Rows of an entity that a step uses at most.
      query: Makes the clipping norm follow a quantile.
      metrics: Brings loss and metrics along. With either, the mechanism's own norm is
        ``joint_norm`` of all, and its grid has as many coordinates more.
      noise: ``SEEDED`` for simulations.

    Returns:
      Client work and aggregator, both with ``released``.

    Raises:
      PrivacyError: The model mixes rows.
    """
    unit: RowUnit = "entity" if mechanism.unit == "entity" else "example"
    refuse_mixing_layers(model, unit)
    batching = row_batching(unit, mechanism.sampling_rate, 1, max_rows_per_entity)
    work = _gradient_sum(
        model,
        noise.batching(batching),
        metrics.clipping_norm if metrics else mechanism.clipping_norm,
        max_rows_per_entity,
        (query, metrics),
    )
    observers = [
        *([adaptive_norm(query)] if query else []),
        *([noised_metrics(metrics)] if metrics else []),
    ]

    def released(source: Noise) -> ClientWork:
        return work._replace(batching=source.batching(batching), released=None)

    aggregator = chain(
        mean_over_expected_cohort(expected_count),
        *observers,
        fixed_point_sum(mechanism, noise=noise),
    )
    return work._replace(released=released), aggregator


class _Carry(NamedTuple):
    message: Any
    seed: Any
    total: Any
    extras: Any


def _gradient_sum(
    model: Model,
    batching: Any,
    clipping_norm: float,
    max_rows_per_entity: int,
    observed: tuple[QuantileQuery | None, MetricsQuery | None] = (None, None),
) -> ClientWork:
    """One batch's sum, and in ``extras`` a count of units and sums of metrics.

    Where the norm follows a quantile, it is what the chain's second stage shares.
    """
    query, metrics = observed

    def start(message: Broadcast, client: ClientInput) -> _Carry:
        zero = nests.zeros_like(message.weights.trainable)
        extras = [tf.constant(0.0)] if query else []
        if metrics:
            extras.append(tf.zeros([1 + len(metrics.names)], tf.float64))
        return _Carry(message, client.seed, zero, tuple(extras))

    def step(carry: _Carry, batch: Batch) -> _Carry:
        norm: Any = clipping_norm
        if query:
            norm = bounded_norm(carry.message.shared[1], query.initial_clipping_norm)
        # Assigned, not added to: one batch is all that the noise accounts for.
        total, outputs, count = clipped_sum_and_count(
            model,
            carry.message.weights,
            batch,
            carry.seed,
            clipping_norm=norm,
            rows_per_unit=max_rows_per_entity,
        )
        extras = [count] if query else []
        if metrics:
            extras.append(
                batch_metrics(metrics, model, batch, outputs, max_rows_per_entity)
            )
        return carry._replace(total=total, extras=tuple(extras))

    def finish(message: Broadcast, carry: _Carry) -> tuple[Contribution, Any]:
        update = message.weights._replace(
            trainable=carry.total, state=nests.zeros_like(message.weights.state)
        )
        return Contribution(update, tf.constant(0.0), {}, carry.extras), ()

    return ClientWork(
        batching=batching,
        init_state=stateless,
        start=start,
        step=step,
        finish=finish,
    )


def _refuse_local_steps(local_steps: int, unit: RowUnit) -> None:
    if local_steps != 1:
        raise PrivacyError(
            f"local_steps is {local_steps}: with the noise on the server's sum, only "
            f"one step of clipped gradients bounds one {unit}'s effect. Use "
            "local_steps = 1, or trust = 'local' (dp_sgd) for more."
        )
