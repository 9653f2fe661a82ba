"""Plain Python, one client after another: the oracle for every other runtime."""

from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
)
from fedtrain.core import nests, seeds
from fedtrain.data.examples import Examples, map_arrays
from fedtrain.models.model import Batch, without_trailing_padding
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    CohortClient,
    RoundResult,
    batching_seed,
    client_seed,
    empty_total,
    mean_metrics,
    refuse_order_statistics,
    server_seed,
)


class EagerRuntime:
    """Runs a round in plain Python. Slow, short, and what the others must equal."""

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``."""
        refuse_order_statistics(round_)
        message = round_.broadcast(state)
        total: Contribution | None = None
        client_states = {}
        for client in cohort:
            contribution, client_states[client.client_id] = contribute(
                round_.client_work, message, client, client_seed(seed, client.client_id)
            )
            total = contribution if total is None else nests.add(total, contribution)
        if total is None:
            total = empty_total(round_.client_work, message)
        new_state = round_.server_update(state, total, server_seed(seed))
        return RoundResult(new_state, mean_metrics(total.metrics), client_states)


def contribute(
    work: ClientWork, message: Broadcast, client: CohortClient, seed: seeds.HostSeed
) -> tuple[Contribution, Any]:
    """One client's contribution and new state, batch by batch."""
    num_examples = tf.constant(client.examples.num_examples, tf.int32)
    given = ClientInput(client.state, tf.constant(seed), num_examples)
    carry = work.start(message, given)
    for rows in work.batching.indices(client.examples, batching_seed(seed)):
        batch = gather_batch(client.examples, rows)
        carry = work.step(carry, without_trailing_padding(batch))
    return work.finish(message, carry)


def gather_batch(examples: Examples, rows: Any) -> Batch:
    """The batch of ``rows``; padding (-1) repeats the first row with weight 0."""
    mask = (rows >= 0).astype(np.float32)
    at = np.maximum(rows, 0)
    weights = mask
    if examples.weights is not None:
        weights = mask * tf.cast(_rows(examples.weights, at), tf.float32)
    return Batch(
        features=map_arrays(lambda array: _rows(array, at), examples.features),
        labels=_rows(examples.labels, at),
        weights=tf.convert_to_tensor(weights),
        mask=tf.constant(mask),
    )


def _rows(array: Any, at: Any) -> tf.Tensor:
    if len(array) == 0:
        return tf.zeros([len(at), *array.shape[1:]], array.dtype)
    return tf.convert_to_tensor(array[at])
