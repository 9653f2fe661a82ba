"""Plain Python with masks: what a deployed round with secure aggregation computes.

Every contribution goes through a whole session of the protocol in this process, keys,
shares and signatures included. It hides nothing from this machine; it shows that the
sum behind masks is the sum without them, to the bit.
"""

from collections.abc import Collection, Mapping

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.privacy.fixed_point_sum import from_ring_vector, ring_vector
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import Cohort, RoundResult, client_seed, server_seed
from fedtrain.runtimes.eager import contribute
from fedtrain.secagg.parameters import Parameters
from fedtrain.secagg.regions import Regions
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_network import Faults, SimulatedNetwork
from fedtrain.secagg.simulated_regions import RegionalNetwork


class SecureRuntime:
    """Runs rounds like ``EagerRuntime``, and adds up by secure aggregation.

    Args:
      session: Of every round; with regions, sessions of two levels.
      lost: From which step on a client is lost, by client id, in every round.
    """

    def __init__(
        self, session: Parameters | Regions, *, lost: Mapping[str, Step] | None = None
    ) -> None:
        self._session = session
        self._lost = dict(lost or {})

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
        # The ids of simulated clients need not be such as the protocol signs.
        ids = {f"client-{at:04}": name for at, name in enumerate(sorted(contributions))}
        vectors = {each: ring_vector(contributions[name]) for each, name in ids.items()}
        lost = {
            each: self._lost[name] for each, name in ids.items() if name in self._lost
        }
        like = next(iter(contributions.values()))
        network = _network(self._session, ids, len(ring_vector(like)))
        faults = Faults(lost=lost, carried=list)
        found = network.secure_sum(round_number, vectors, faults)
        total = from_ring_vector(found.total, like=like)
        return total, tuple(ids[each] for each in found.survivors)


def _network(
    session: Parameters | Regions, client_ids: Collection[str], length: int
) -> SimulatedNetwork | RegionalNetwork:
    if isinstance(session, Regions):
        return RegionalNetwork(session, client_ids=client_ids, vector_length=length)
    return SimulatedNetwork(session, client_ids=client_ids, vector_length=length)


def _check(round_: Round) -> None:
    if not round_.is_modular:
        raise ConfigError(
            f"{round_.name} does not add up whole numbers modulo 2^32, so masks would "
            "not cancel. Use fixed_point_sum(...), or rounds.secure_aggregation = true "
            "in a project file."
        )
