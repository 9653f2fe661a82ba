"""Fine-tuning rounds: clients train under a constraint that the server derives.

At the start of a round the server works out masks, assignments and ranges from its own
weights and broadcasts them; each client's model computes with constrained weights; the
server's new weights are put back under the constraint.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
)
from fedtrain.compression.constraint import Constraint
from fedtrain.core.seeds import Seed
from fedtrain.models.model import ForwardPass, Model, ModelWeights
from fedtrain.rounds.round import Round, ServerState

RoundOf = Callable[[Model], Round]


def fine_tuned(round_of: RoundOf, model: Model, constraint: Constraint) -> Round:
    """The round ``round_of(model)`` under ``constraint``.

    ``fine_tuned(lambda model: fed_avg(local_sgd(model, sgd(0.05), batching)), model,
    chain(pruned(0.8), clustered(16)))``. Its ``ServerState`` is that of the plain
    round, so fine-tuning goes on from trained weights or from a checkpoint.

    Args:
      round_of: Builds the round from a model; called again for every trace. Its local
        steps have to treat equal weights with equal gradients alike, as optimizers do,
        unless they add noise of their own.
      model: What was trained.
      constraint: What the weights have to satisfy.

    Guarantees:
      Mechanisms and what they promise are those of the plain round: the constraint is a
      function of the server's weights and the round's number, and nothing else that
      depends on data is sent. Rounds cost privacy like any others.
      After each round the server's weights satisfy ``constraint.keep`` of that round;
      ``one_shot`` gives the weights to release.
    """
    plain = round_of(model)
    return plain._replace(
        broadcast=partial(_broadcast, plain, constraint),
        client_work=_client_work(round_of, model, constraint),
        server_update=partial(_server_update, plain, constraint),
        name=f"{plain.name} under {constraint.name}",
    )


def constrained_model(
    model: Model, constraint: Constraint, fixed: Any, *, is_kept: bool = False
) -> Model:
    """``model`` computing with ``constraint.apply(fixed, weights)``.

    Args:
      model: Takes and returns the same weights as before.
      constraint: Which gradients pass, too.
      fixed: What ``constraint.derive`` gave.
      is_kept: Whether all weights that it will see satisfy ``constraint.keep``.
    """
    apply = constraint.within if is_kept else constraint.apply

    def forward(
        weights: ModelWeights, features: Any, *, training: bool, seed: Seed
    ) -> ForwardPass:
        own = weights._replace(trainable=apply(fixed, weights.trainable))
        return model.forward(own, features, training=training, seed=seed)

    return model._replace(forward=forward)


class _Shared(NamedTuple):
    fixed: Any
    inner: Any


class _Carry(NamedTuple):
    fixed: Any
    inner: Any


def _broadcast(plain: Round, constraint: Constraint, state: ServerState) -> Broadcast:
    fixed = _derived(constraint, state)
    message = plain.broadcast(state._replace(weights=_kept(constraint, fixed, state)))
    return message._replace(shared=_Shared(fixed, message.shared))


def _server_update(
    plain: Round,
    constraint: Constraint,
    state: ServerState,
    total: Contribution,
    seed: Seed,
) -> ServerState:
    fixed = _derived(constraint, state)
    new_state = plain.server_update(state, total, seed)
    return new_state._replace(weights=_kept(constraint, fixed, new_state))


def _derived(constraint: Constraint, state: ServerState) -> Any:
    return constraint.derive(state.weights.trainable, state.round_number)


def _kept(constraint: Constraint, fixed: Any, state: ServerState) -> ModelWeights:
    trainable = constraint.keep(fixed, state.weights.trainable)
    return state.weights._replace(trainable=trainable)


def _client_work(round_of: RoundOf, model: Model, constraint: Constraint) -> ClientWork:
    plain = round_of(model).client_work
    # Equal steps keep equal weights equal, but noise of the clients' own does not.
    is_kept = not plain.mechanisms
    under = partial(_work_under, round_of, model, constraint, {}, is_kept)

    def start(message: Broadcast, client: ClientInput) -> _Carry:
        fixed = message.shared.fixed
        return _Carry(fixed, under(fixed).start(_plain(message), client))

    def step(carry: _Carry, batch: Any) -> _Carry:
        return carry._replace(inner=under(carry.fixed).step(carry.inner, batch))

    def finish(message: Broadcast, carry: _Carry) -> tuple[Contribution, Any]:
        return under(carry.fixed).finish(_plain(message), carry.inner)

    return plain._replace(start=start, step=step, finish=finish, released=None)


def _work_under(
    round_of: RoundOf,
    model: Model,
    constraint: Constraint,
    kept: dict[Any, ClientWork],
    is_kept: bool,  # noqa: FBT001 - bound by partial
    fixed: Any,
) -> ClientWork:
    # The last one is kept, because what a model's forward pass traces is found by it.
    key = tuple(leaf.ref() for leaf in tf.nest.flatten(fixed))
    work = kept.get(key)
    if work is None:
        inner = constrained_model(model, constraint, fixed, is_kept=is_kept)
        work = round_of(inner).client_work
        kept.clear()
        kept[key] = work
    return work


def _plain(message: Broadcast) -> Broadcast:
    return message._replace(shared=message.shared.inner)
