"""Plain Python with masks: what a deployed round with secure aggregation computes.

Every contribution goes through a whole session of the protocol in this process, keys,
shares and signatures included. It hides nothing from this machine; it shows that the
sum behind masks is the sum without them, to the bit.
"""

from collections.abc import Collection, Mapping

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.privacy.fixed_point_sum import from_ring_vector, ring_vector
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import Cohort, RoundResult, client_seed, server_seed
from fedtrain.runtimes.eager import contribute
from fedtrain.secagg.parameters import Parameters
from fedtrain.secagg.regions import Regions
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_network import Faults, SimulatedNetwork
from fedtrain.secagg.simulated_regions import RegionalNetwork, RegionsOnlyError


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
        self._shown: set[int] = set()

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``.

        Raises:
          ConfigError: If contributions are not whole numbers modulo 2^32.
          PrivacyError: If the round's noise was made for another session, or the round
            was tried before and has shown sums of regions: its noise is spent.
          TooFewClientsError: If more clients are lost than the session tolerates. With
            regions (``RegionsOnlyError``) sums of some may have been shown: the round
            is to be charged, and tried again only with fresh noise.
        """
        _check(round_)
        _check_noise(round_, self._session)
        self._check_is_fresh(int(state.round_number))
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
        try:
            found = network.secure_sum(round_number, vectors, faults)
        except RegionsOnlyError:
            self._shown.add(round_number)
            raise
        total = from_ring_vector(found.total, like=like)
        return total, tuple(ids[each] for each in found.survivors)

    def _check_is_fresh(self, round_number: int) -> None:
        if round_number in self._shown:
            raise PrivacyError(
                f"Round {round_number} has no total, but regions have shown their sums "
                "under its noise. Train again under another seed and run id, with a "
                "charge of its own."
            )


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


def _check_noise(round_: Round, session: Parameters | Regions) -> None:
    """Refuses shares of noise that would be too small in a sum that is opened."""
    own = {
        "num_clients": session.num_clients,
        "num_honest": session.num_honest_survivors,
        "num_regions": len(session.sessions) if isinstance(session, Regions) else 1,
    }
    for mechanism in round_.mechanisms:
        made = own | {"num_regions": 1} | dict(mechanism.details)
        if (
            made["num_honest"] > own["num_honest"]
            or made["num_clients"] < own["num_clients"]
            or made["num_regions"] < own["num_regions"]
        ):
            numbers = {name: made[name] for name in own}
            raise PrivacyError(
                f"The noise of {round_.name} was made for {numbers}, the session has "
                f"{own}: its sums would have too little noise, or wrap. Make the "
                "mechanism with the session's numbers."
            )
