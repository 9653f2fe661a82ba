"""Flower: FedAvg on its simulation engine, two Ray actors of one core each."""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import platform
import sys
from importlib.metadata import version
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

from simulations.speed.peers.flower.client import client_of
from simulations.speed.session import Session, arguments
from simulations.speed.workload import Array, Workload


class _EndOfRunError(Exception):
    """No further round is wanted."""


class _Rounds:
    """The strategy's hooks before and after a round."""

    def __init__(self, session: Session, workload: Workload) -> None:
        self._session, self._weights = session, workload.weights

    def before(self, server_round: int) -> dict[str, Any]:
        """Waits until a round is wanted."""
        del server_round
        if not self._session.before_round(lambda: self._weights):
            raise _EndOfRunError
        return {}

    def after(self, server_round: int, weights: list[Array], config: Any) -> None:
        """Notes the round; Flower scores the first weights, too, as round 0."""
        del config
        self._weights = weights
        if server_round > 0:
            self._session.after_round()


def main() -> None:
    """Serves rounds until standard input ends."""
    session = Session()
    workload, options = arguments()
    rounds = _Rounds(session, workload)
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=workload.num_clients,
        min_available_clients=workload.num_clients,
        initial_parameters=ndarrays_to_parameters(workload.weights),
        on_fit_config_fn=rounds.before,
        evaluate_fn=rounds.after,
        accept_failures=False,
    )

    def server(context: Context) -> ServerAppComponents:
        del context
        config = ServerConfig(num_rounds=10**6)
        return ServerAppComponents(strategy=strategy, config=config)

    session.ready(versions=_versions(), settings=options)
    os.environ["FEDTRAIN_SPEED_WORKLOAD"] = sys.argv[1]
    try:
        run_simulation(
            server_app=ServerApp(server_fn=server),
            client_app=ClientApp(client_fn=client_of),
            num_supernodes=workload.num_clients,
            backend_config={
                "init_args": {"num_cpus": 2, "include_dashboard": False},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )
    except _EndOfRunError:
        return


def _versions() -> dict[str, str]:
    own = {name: version(name) for name in ("flwr", "ray")}
    tensorflow = version("tensorflow-cpu")
    return {"python": platform.python_version(), **own, "tensorflow": tensorflow}


if __name__ == "__main__":
    main()
