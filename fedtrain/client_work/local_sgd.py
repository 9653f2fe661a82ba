"""Local training: each step moves the weights along the gradient of one batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.client_work.batching import Batching
from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
    stateless,
)
from fedtrain.core import nests, seeds
from fedtrain.models.model import (
    Batch,
    Model,
    ModelWeights,
    PerExample,
    mean_loss,
    sums,
)
from fedtrain.optimizers.optimizer import Optimizer

Penalty = Callable[[Any, Any], Any]


class Carry(NamedTuple):
    """What local training holds between two batches."""

    weights: ModelWeights
    slots: Any
    anchor: Any
    seed: Any
    step: Any
    num_examples: Any
    metrics: Any


def local_sgd(
    model: Model,
    optimizer: Optimizer,
    batching: Batching,
    *,
    proximal_strength: float = 0.0,
    reports_metrics: bool = True,
) -> ClientWork:
    """Local training with any optimizer (McMahan et al., 2017, ClientUpdate).

    Args:
      model: What is trained.
      optimizer: The client's optimizer; its slots start afresh in each round.
      batching: Which rows each step sees.
      proximal_strength: FedProx's mu: adds ``mu / 2 * ||weights - global weights||^2``
        to each batch's loss (Li et al., 2020, https://arxiv.org/abs/1812.06127).
      reports_metrics: Whether exact sums of loss and metrics leave with the update.

    Returns:
      Client work whose contribution is weighted by the client's number of rows.
    """

    def start(message: Broadcast, client: ClientInput) -> Carry:
        weights = message.weights
        return Carry(
            weights=weights,
            slots=optimizer.init(weights.trainable),
            anchor=weights.trainable if proximal_strength else (),
            seed=client.seed,
            step=tf.constant(0, tf.int32),
            num_examples=client.num_examples,
            metrics=zero_metrics(model) if reports_metrics else {},
        )

    def step(carry: Carry, batch: Batch) -> Carry:
        seed = step_seed(carry.seed, carry.step)
        gradients, outputs, state = loss_gradients(model, carry.weights, batch, seed)
        if proximal_strength:
            pull = nests.subtract(carry.weights.trainable, carry.anchor)
            gradients = nests.add(gradients, nests.scale(pull, proximal_strength))
        trainable, slots = optimizer.update(
            carry.weights.trainable, carry.slots, gradients
        )
        metrics = carry.metrics
        if reports_metrics:
            metrics = nests.add(metrics, sums(model, batch, outputs))
        return carry._replace(
            weights=ModelWeights(trainable, state),
            slots=slots,
            step=carry.step + 1,
            metrics=metrics,
        )

    def finish(message: Broadcast, carry: Carry) -> tuple[Contribution, Any]:
        update = nests.subtract(message.weights, carry.weights)
        weight = tf.cast(carry.num_examples, tf.float64)
        return Contribution(update=update, weight=weight, metrics=carry.metrics), ()

    return ClientWork(
        batching=batching,
        init_state=stateless,
        start=start,
        step=step,
        finish=finish,
        reports_metrics=reports_metrics,
        mixes_rows=bool(model.mixing_layers),
    )


def loss_gradients(
    model: Model, weights: ModelWeights, batch: Batch, seed: seeds.Seed
) -> tuple[Any, Any, Any]:
    """Gradients of the mean loss (and penalty), the outputs and the new state."""
    with tf.GradientTape() as tape:
        tape.watch(weights.trainable)
        result = model.forward(weights, batch.features, training=True, seed=seed)
        loss = mean_loss(model, batch, result.outputs)
        loss += tf.cast(result.penalty, loss.dtype)
    gradients = tape.gradient(loss, weights.trainable, unconnected_gradients="zero")
    dense = tf.nest.map_structure(tf.convert_to_tensor, gradients)
    return dense, result.outputs, result.state


def step_seed(seed: seeds.Seed, step: Any) -> tf.Tensor:
    """The seed of local step ``step``, int32 [2]."""
    return seeds.fold(seed, step)


def zero_metrics(model: Model) -> dict[str, Any]:
    """Sums of loss and metrics before the first batch."""
    zero = tf.constant(0.0)
    return {name: PerExample(zero, zero) for name in ("loss", *model.metrics)}
