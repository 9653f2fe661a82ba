"""One round of an algorithm: broadcast, contribute, update."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.aggregation.aggregator import (
    Aggregator,
    no_numbers,
    refuse_compressed_bounds,
    refuse_exact_quantities,
    unpacked,
)
from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
)
from fedtrain.core import nests, seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.models.model import ModelWeights
from fedtrain.optimizers.optimizer import Optimizer


class ServerState(NamedTuple):
    """All that the server carries from round to round.

    Attributes:
      round_number: int32 scalar: how many rounds are done.
      weights: The global ``ModelWeights``.
      slots: The server optimizer's.
      aggregator: The aggregator's.
    """

    round_number: Any
    weights: ModelWeights
    slots: Any
    aggregator: Any


class Round(NamedTuple):
    """One round of an algorithm, for any runtime.

    Attributes:
      init: ``init(weights)`` -> ``ServerState``.
      broadcast: ``broadcast(state)`` -> ``Broadcast``.
      client_work: What each client computes, encoding included.
      server_update: ``server_update(state, total, seed)`` -> ``ServerState``.
      mechanisms: Every privacy mechanism in it, client's and server's.
      reports_metrics: Whether exact sums of loss and metrics leave the clients.
      needs: ``"sum"``, or ``"contributions"`` for order statistics.
      name: For reports.
      packings: The aggregator's: how short a contribution's update is on the wire.
      reported: ``reported(state)`` -> noised numbers of the last round, by name.
      is_modular: Whether updates are whole numbers modulo 2^32, for secure aggregation.
      released: ``released(noise)`` -> the same round with its noise from a source for
        release; None where it adds none, or cannot be rebuilt so.
    """

    init: Callable[[Any], ServerState]
    broadcast: Callable[[ServerState], Broadcast]
    client_work: ClientWork
    server_update: Callable[[ServerState, Contribution, seeds.Seed], ServerState]
    mechanisms: tuple[Mechanism, ...] = ()
    reports_metrics: bool = False
    needs: str = "sum"
    name: str = "round"
    packings: Callable[[Any], Any] = unpacked
    reported: Callable[[ServerState], dict[str, float]] = no_numbers
    is_modular: bool = False
    released: "Callable[[Any], Round] | None" = None


def averaging_round(
    client_work: ClientWork,
    *,
    aggregator: Aggregator,
    server_optimizer: Optimizer,
    name: str,
) -> Round:
    """The round that FedAvg and its relatives share.

    The server optimizer takes the aggregate as a gradient of the trainable weights; the
    model's non-trainable state moves by the aggregate itself.

    Raises:
      PrivacyError: If the aggregator reveals an exact quantity beside a protected one,
        or compresses what noise on the sum relies on.
    """
    mechanisms = (*client_work.mechanisms, *aggregator.mechanisms)
    # Client work that protects itself fixes its weight too: a mean may divide by it.
    refuse_exact_quantities(aggregator.mechanisms, aggregator.reveals)
    refuse_compressed_bounds(mechanisms, aggregator)
    if client_work.mechanisms and aggregator.mechanisms:
        raise PrivacyError(
            "The client work and the aggregator both add noise; one epsilon cannot "
            "speak for both. Keep one of them."
        )
    if aggregator.is_modular and client_work.reports_metrics:
        raise PrivacyError(
            "Exact sums of loss and metrics would leave beside a sum that secure "
            "aggregation hides. Use reports_metrics = False; score public rows."
        )
    return Round(
        init=partial(_init, aggregator, server_optimizer),
        broadcast=partial(_broadcast, aggregator),
        client_work=encoded(client_work, aggregator),
        server_update=partial(_server_update, aggregator, server_optimizer),
        mechanisms=mechanisms,
        reports_metrics=client_work.reports_metrics,
        needs=aggregator.needs,
        name=name,
        packings=aggregator.packings,
        reported=lambda state: aggregator.reported(state.aggregator),
        is_modular=aggregator.is_modular,
        released=_released(
            client_work, aggregator, server_optimizer=server_optimizer, name=name
        ),
    )


def _released(
    client_work: ClientWork, aggregator: Aggregator, **others: Any
) -> Callable[[Any], Round] | None:
    """Rebuilds a round, whichever of the two adds its noise."""
    work, stages = client_work.released, aggregator.released
    if not (work if client_work.mechanisms else stages):
        return None

    def rebuilt(noise: Any) -> Round:
        return averaging_round(
            work(noise) if work else client_work,
            aggregator=stages(noise) if stages else aggregator,
            **others,
        )

    return rebuilt


class _EncodedCarry(NamedTuple):
    inner: Any
    encoder_state: Any
    seed: Any


def encoded(client_work: ClientWork, aggregator: Aggregator) -> ClientWork:
    """Client work whose contribution has passed the aggregator's client half.

    Its client state is the pair of the work's and the aggregator's.
    """

    def init_state(weights: Any) -> Any:
        return client_work.init_state(weights), aggregator.init_client(weights)

    def start(message: Broadcast, client: ClientInput) -> _EncodedCarry:
        work_state, encoder_state = client.state
        own = client._replace(state=work_state, seed=seeds.fold(client.seed, 0))
        inner = client_work.start(message, own)
        return _EncodedCarry(inner, encoder_state, seeds.fold(client.seed, 1))

    def step(carry: _EncodedCarry, batch: Any) -> _EncodedCarry:
        return carry._replace(inner=client_work.step(carry.inner, batch))

    def finish(message: Broadcast, carry: _EncodedCarry) -> tuple[Contribution, Any]:
        contribution, work_state = client_work.finish(message, carry.inner)
        contribution, encoder_state = aggregator.encode(
            message.shared, contribution, carry.encoder_state, carry.seed
        )
        return contribution, (work_state, encoder_state)

    return client_work._replace(
        init_state=init_state, start=start, step=step, finish=finish, released=None
    )


def _init(aggregator: Aggregator, optimizer: Optimizer, weights: Any) -> ServerState:
    weights = nests.to_tensors(weights)
    return ServerState(
        round_number=tf.constant(0, tf.int32),
        weights=weights,
        slots=optimizer.init(weights.trainable),
        aggregator=aggregator.init(weights),
    )


def _broadcast(aggregator: Aggregator, state: ServerState) -> Broadcast:
    return Broadcast(
        round_number=state.round_number,
        weights=state.weights,
        shared=aggregator.share(state.aggregator),
    )


def _server_update(
    aggregator: Aggregator,
    optimizer: Optimizer,
    state: ServerState,
    total: Contribution,
    seed: seeds.Seed,
) -> ServerState:
    aggregate, aggregator_state = aggregator.decode(state.aggregator, total, seed)
    trainable, slots = optimizer.update(
        state.weights.trainable, state.slots, aggregate.update.trainable
    )
    model_state = nests.subtract(state.weights.state, aggregate.update.state)
    return ServerState(
        round_number=state.round_number + 1,
        weights=ModelWeights(trainable, model_state),
        slots=slots,
        aggregator=aggregator_state,
    )
