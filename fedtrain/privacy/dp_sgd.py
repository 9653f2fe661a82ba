"""DP-SGD inside a client: each institution adds the full noise and trusts nobody.

Source: Abadi et al. (2016), Deep learning with differential privacy,
https://arxiv.org/abs/1607.00133, Algorithm 1, with a public denominator. Entities:
Poisson-sampled as a whole, the *sum* of an entity's gradients is clipped.
"""

from typing import Any, Literal, NamedTuple

import tensorflow as tf

from fedtrain.client_work.batching import Poisson, PoissonEntities
from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
    stateless,
)
from fedtrain.client_work.local_sgd import step_seed, zero_metrics
from fedtrain.client_work.per_example import penalty_gradients
from fedtrain.core import nests, seeds, validate
from fedtrain.core.errors import PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.models.model import Batch, Model, sums
from fedtrain.optimizers.optimizer import Optimizer
from fedtrain.privacy import events
from fedtrain.privacy.ghost_clipping import clipped_sum
from fedtrain.privacy.noise_source import SEEDED, Noise

RowUnit = Literal["example", "entity"]


class Carry(NamedTuple):
    """What DP-SGD holds between two batches."""

    weights: Any
    slots: Any
    seed: Any
    step: Any
    metrics: Any


def dp_sgd(  # noqa: PLR0913 - one number for each term of the promise
    model: Model,
    optimizer: Optimizer,
    *,
    clipping_norm: float,
    noise_multiplier: float,
    sampling_rate: float,
    local_steps: int,
    expected_batch_size: float,
    unit: RowUnit = "example",
    max_rows_per_entity: int = 1,
    reports_metrics: bool = False,
    noise: Noise = SEEDED,
) -> ClientWork:
    """Local training whose every step is private (trust ``local``).

    Args:
      model: What is trained; layers that mix rows are refused.
      optimizer: Takes the noised mean gradient. Its slots start afresh each round.
      clipping_norm: L2 bound on the gradient of one row (or the sum of an entity's).
      noise_multiplier: Noise on the sum of a batch, over ``clipping_norm``.
      sampling_rate: Of rows (or entities) in each step: a public constant.
      local_steps: Steps in a round; an empty batch still is a noised step.
      expected_batch_size: The public denominator of every step, such as
        ``sampling_rate`` times a public number of rows; never a client's own count.
      unit: ``"example"``, or ``"entity"`` for all rows of one customer or patient.
      max_rows_per_entity: Rows of an entity that a step uses at most.
      reports_metrics: Sends exact sums of loss and metrics along, which nothing
        protects: for public data only.
      noise: ``SEEDED`` for simulations, ``ReleasedNoise(key)`` at a partner.

    Returns:
      Client work of weight 1, whatever the client's number of rows.

    Guarantees:
      What leaves is differentially private for one row (or entity) with the event in
      its ``mechanisms``, for add-or-remove-one. Seeded noise is repeatable, and so not
      a release; ``ReleasedNoise`` says what its own promise rests on.

    Raises:
      PrivacyError: A layer mixes rows, or exact metrics would leave beside released
        noise.
    """
    validate.positive(expected_batch_size=expected_batch_size)
    batching = row_batching(unit, sampling_rate, local_steps, max_rows_per_entity)
    refuse_mixing_layers(model, unit)
    mechanism = _mechanism(
        unit, clipping_norm, noise_multiplier, sampling_rate, local_steps, noise
    )
    _refuse_exact_metrics(mechanism, reports_metrics=reports_metrics)

    def start(message: Broadcast, client: ClientInput) -> Carry:
        return Carry(
            weights=message.weights,
            slots=optimizer.init(message.weights.trainable),
            seed=client.seed,
            step=tf.constant(0, tf.int32),
            metrics=zero_metrics(model) if reports_metrics else {},
        )

    def step(carry: Carry, batch: Batch) -> Carry:
        seed = step_seed(carry.seed, carry.step)
        forward_seed = tf.unstack(seeds.split(seed, 2))[0]
        total, outputs = clipped_sum(
            model,
            carry.weights,
            batch,
            forward_seed,
            clipping_norm=mechanism.clipping_norm,
            rows_per_unit=max_rows_per_entity,
        )
        noised = noise.noised(total, mechanism, carry.seed, carry.step)
        mean = nests.scale(noised, 1.0 / expected_batch_size)
        penalty = penalty_gradients(model, carry.weights, batch)
        mean = mean if penalty is None else nests.add(mean, penalty)
        trainable, slots = optimizer.update(carry.weights.trainable, carry.slots, mean)
        metrics = carry.metrics
        if reports_metrics:
            metrics = nests.add(metrics, sums(model, batch, outputs))
        return carry._replace(
            weights=carry.weights._replace(trainable=trainable),
            slots=slots,
            step=carry.step + 1,
            metrics=metrics,
        )

    def finish(message: Broadcast, carry: Carry) -> tuple[Contribution, Any]:
        update = nests.subtract(message.weights, carry.weights)
        return Contribution(update, tf.constant(1.0), carry.metrics), ()

    def released(source: Noise) -> ClientWork:
        return dp_sgd(
            model,
            optimizer,
            clipping_norm=clipping_norm,
            noise_multiplier=noise_multiplier,
            sampling_rate=sampling_rate,
            local_steps=local_steps,
            expected_batch_size=expected_batch_size,
            unit=unit,
            max_rows_per_entity=max_rows_per_entity,
            reports_metrics=reports_metrics,
            noise=source,
        )

    return ClientWork(
        batching=noise.batching(batching),
        init_state=stateless,
        start=start,
        step=step,
        finish=finish,
        mechanisms=(mechanism,),
        reports_metrics=reports_metrics,
        released=released,
    )


def row_batching(
    unit: RowUnit, sampling_rate: float, local_steps: int, max_rows_per_entity: int
) -> Poisson | PoissonEntities:
    """Poisson batches of rows, or of entities."""
    validate.one_of(("example", "entity"), unit=unit)
    if unit == "example":
        if max_rows_per_entity != 1:
            raise PrivacyError(
                f"max_rows_per_entity is {max_rows_per_entity} with unit = 'example', "
                "where every row stands for itself. Use unit = 'entity'."
            )
        return Poisson(sampling_rate=sampling_rate, local_steps=local_steps)
    return PoissonEntities(
        sampling_rate=sampling_rate,
        local_steps=local_steps,
        max_rows_per_entity=max_rows_per_entity,
    )


def refuse_mixing_layers(model: Model, unit: RowUnit) -> None:
    """Raises PrivacyError where one row's output depends on other rows."""
    if model.mixing_layers:
        names = ", ".join(model.mixing_layers)
        raise PrivacyError(
            f"{model.name} mixes the rows of a batch in {names}, so one {unit}'s "
            "effect on a gradient has no bound. Replace BatchNormalization with "
            "GroupNormalization or LayerNormalization, or use unit = 'client'."
        )


def _refuse_exact_metrics(mechanism: Mechanism, *, reports_metrics: bool) -> None:
    if mechanism.is_released and reports_metrics:
        raise PrivacyError(
            "reports_metrics = True sends exact sums of loss and metrics beside noise "
            "that is released. Use reports_metrics = False; evaluate on public rows."
        )


def _mechanism(
    unit: RowUnit,
    clipping_norm: float,
    noise_multiplier: float,
    sampling_rate: float,
    local_steps: int,
    noise: Noise,
) -> Mechanism:
    validate.positive(clipping_norm=clipping_norm, noise_multiplier=noise_multiplier)
    one_step = events.sampled(sampling_rate, events.gaussian(noise_multiplier))
    return Mechanism(
        name="dp_sgd",
        unit=unit,
        trust="local",
        clipping_norm=clipping_norm,
        noise_multiplier=noise_multiplier,
        noise_stddev_on_sum=noise.stddev_on_sum(clipping_norm, noise_multiplier),
        dp_event=events.times(one_step, local_steps),
        details=(
            ("sampling_rate", sampling_rate),
            ("local_steps", local_steps),
            *noise.details,
        ),
    )
