"""Who carries a round out: the protocol that every runtime implements."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

from fedtrain.client_work.client_work import (
    Broadcast,
    ClientInput,
    ClientWork,
    Contribution,
)
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.rounds.round import Round, ServerState


class CohortClient(NamedTuple):
    """One client of a cohort.

    Attributes:
      client_id: Its name.
      examples: Its rows.
      state: What it kept from its last round.
    """

    client_id: str
    examples: Examples
    state: Any


Cohort = Sequence[CohortClient]


class RoundResult(NamedTuple):
    """What a runtime returns.

    Attributes:
      state: The server's state after the round.
      metrics: Means over the cohort of what its clients reported; empty if nothing.
      client_states: New client states by client id.
      lost_clients: Ids of clients whose contribution is not in the sum.
    """

    state: ServerState
    metrics: Mapping[str, float]
    client_states: Mapping[str, Any]
    lost_clients: tuple[str, ...] = ()


class Runtime(Protocol):
    """Carries out one round."""

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``; the same seed gives the same result."""
        ...


@runtime_checkable
class AdaptiveRuntime(Runtime, Protocol):
    """A runtime that chooses how to run rounds, and can pack the next one ahead."""

    def begin(
        self,
        round_: Round,
        *,
        num_rounds: int,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        """Tells how many rounds are to come, and how those before them were run."""
        ...

    def execution(self, round_: Round) -> Mapping[str, Any]:
        """How rounds like ``round_`` are run: what ``begin`` takes as ``recorded``."""
        ...

    def prepare(self, round_: Round, cohort: Cohort, seed: seeds.Seed) -> None:
        """A hint that this round comes next; results are equal without it."""
        ...


def refuse_order_statistics(round_: Round) -> None:
    """Raises ConfigError where adding contributions up is not enough."""
    if round_.needs != "sum":
        raise ConfigError(
            f"{round_.name} needs each client's contribution by itself, but every "
            "runtime here only adds them up. Use an aggregator that needs their sum, "
            "such as weighted_mean()."
        )


def client_seed(seed: seeds.Seed, client_id: str) -> seeds.HostSeed:
    """A simulated client's own seed; a real client draws it from its system."""
    return seeds.derive(seed, "client", client_id)


def client_seeds(seed: seeds.Seed, client_ids: Iterable[str]) -> seeds.HostSeeds:
    """``client_seed`` of many clients in one go, int32 [clients, 2]."""
    return seeds.derive_for_each(seed, "client", client_ids)


def server_seed(seed: seeds.Seed) -> seeds.HostSeed:
    """The seed of the server's half of the round."""
    return seeds.derive(seed, "server")


def batching_seed(seed: seeds.HostSeed) -> seeds.HostSeed:
    """The part of a client's seed that chooses its batches."""
    return seeds.derive(seed, "batches")


def batching_seeds(many: seeds.HostSeeds) -> seeds.HostSeeds:
    """``batching_seed`` of many clients' seeds in one go, int32 [clients, 2]."""
    return seeds.derive_from_each(many, "batches")


def mean_metrics(total_metrics: Mapping[str, Any]) -> dict[str, float]:
    """Means from a total's sums and counts; nothing where nothing was counted."""
    return {
        name: float(value.total) / float(value.count)
        for name, value in total_metrics.items()
        if float(value.count) > 0.0
    }


def empty_total(work: ClientWork, message: Broadcast) -> Contribution:
    """The sum over no clients: what a client that makes no step sends, times 0."""
    state = work.init_state(message.weights)
    client = ClientInput(state, tf.constant([0, 0]), tf.constant(0, tf.int32))
    contribution, _ = work.finish(message, work.start(message, client))
    return nests.zeros_like(contribution)
