"""What federation buys and what privacy costs: the same run, trained in other ways.

Exact figures about the clients' rows: for public data only.
"""

from typing import Any

import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, ClientInput, ClientWork
from fedtrain.core import nests, seeds
from fedtrain.data.dataset import FederatedDataset
from fedtrain.models.model import ModelWeights
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient, Runtime


def trained_alone(
    work: ClientWork,
    dataset: FederatedDataset,
    weights: ModelWeights,
    *,
    runtime: Runtime,
    num_rounds: int,
    seed: seeds.HostSeed,
) -> dict[str, ModelWeights]:
    """The weights of each client that trains by itself, by client id.

    Every client starts from ``weights`` and makes as many local steps as in
    ``num_rounds`` rounds of ``work``, on its own rows, and hears of nobody else.
    Clients without rows are left out.
    """
    round_ = fed_avg(alone(work))
    state = round_.init(weights)
    sizes = dataset.num_examples()
    own = {
        position: round_.client_work.init_state(state.weights)
        for position in range(dataset.num_clients)
        if sizes[position]
    }
    for number in range(num_rounds):
        cohort = [
            CohortClient(dataset.client_id(i), dataset.client(i), kept)
            for i, kept in own.items()
        ]
        round_seed = seeds.derive(seed, "alone", number)
        result = runtime.run_round(round_, state, cohort, round_seed)
        own = {i: result.client_states[dataset.client_id(i)] for i in own}
    return {dataset.client_id(i): kept[0][0] for i, kept in own.items()}


def alone(work: ClientWork) -> ClientWork:
    """Client work that goes on from the client's own weights and shares nothing."""

    def init_state(weights: Any) -> Any:
        return weights, work.init_state(weights)

    def start(message: Broadcast, client: ClientInput) -> Any:
        own, kept = client.state
        own_message = message._replace(weights=own)
        return own, work.start(own_message, client._replace(state=kept))

    def step(carry: Any, batch: Any) -> Any:
        return carry[0], work.step(carry[1], batch)

    def finish(message: Broadcast, carry: Any) -> Any:
        own, inner = carry
        contribution, kept = work.finish(message._replace(weights=own), inner)
        trained = nests.subtract(own, contribution.update)
        nothing = contribution._replace(
            update=nests.zeros_like(contribution.update),
            weight=tf.zeros_like(contribution.weight),
            metrics={},
        )
        return nothing, (trained, kept)

    return work._replace(
        init_state=init_state,
        start=start,
        step=step,
        finish=finish,
        reports_metrics=False,
        released=None,
    )
