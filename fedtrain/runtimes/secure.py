"""Plain Python with masks: what a deployed round with secure aggregation computes.

Every contribution goes through a whole session of the protocol in this process, keys,
shares and signatures included. It hides nothing from this machine; it shows that the
sum behind masks is the sum without them, to the bit.
"""

from collections.abc import Mapping

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.privacy.fixed_point_sum import from_ring_vector, ring_vector
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import Cohort, RoundResult, client_seed, server_seed
from fedtrain.runtimes.eager import contribute
from fedtrain.secagg.parameters import Parameters
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_network import NO_FAULTS, Faults, SimulatedNetwork


class SecureRuntime:
    """Runs rounds like ``EagerRuntime``, and adds up by secure aggregation.

    Args:
      parameters: Of every session.
      lost: From which step on a client is lost, by client id, in every round.
    """

    def __init__(
        self, parameters: Parameters, *, lost: Mapping[str, Step] | None = None
    ) -> None:
        self._parameters = parameters
        self._faults = Faults(lost=lost, carried=list) if lost else NO_FAULTS

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``.

        Raises:
          ConfigError: If contributions are not whole numbers modulo 2^32.
          TooFewClientsError: If more clients are lost than the session tolerates.
        """
        _check(round_)
        message = round_.broadcast(state)
        results = {
            client.client_id: contribute(
                round_.client_work, message, client, client_seed(seed, client.client_id)
            )
            for client in cohort
        }
        contributions = {name: result[0] for name, result in results.items()}
        total, survivors = self._sum(int(state.round_number), contributions)
        return RoundResult(
            state=round_.server_update(state, total, server_seed(seed)),
            metrics={},
            client_states={name: result[1] for name, result in results.items()},
            lost_clients=tuple(name for name in results if name not in survivors),
        )

    def _sum(
        self, round_number: int, contributions: Mapping[str, Contribution]
    ) -> tuple[Contribution, tuple[str, ...]]:
        vectors = {name: ring_vector(one) for name, one in contributions.items()}
        like = next(iter(contributions.values()))
        network = SimulatedNetwork(
            self._parameters,
            client_ids=vectors,
            vector_length=len(ring_vector(like)),
        )
        found = network.secure_sum(round_number, vectors, self._faults)
        return from_ring_vector(found.total, like=like), found.survivors


def _check(round_: Round) -> None:
    if not round_.is_modular:
        raise ConfigError(
            f"{round_.name} does not add up whole numbers modulo 2^32, so masks would "
            "not cancel. Use fixed_point_sum(...), or rounds.secure_aggregation = true "
            "in a project file."
        )
