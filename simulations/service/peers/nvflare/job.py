"""Hands NVFlare's own FedAvg recipe in, as an operator would."""

import time
from pathlib import Path

from nvflare.client.config import ExchangeFormat
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.recipe import ProdEnv
from nvflare.recipe.fedavg import FedAvgRecipe

from simulations.service.peers.nvflare.persistor import MarkingPersistor
from simulations.service.peers.nvflare.start import ADMIN, kit
from simulations.service.workload import NUM_CLIENTS, NUM_ROUNDS, arguments


def main() -> None:
    """Waits until the server takes it."""
    about = arguments()
    folder, num_weights = about["folder"], about["weights"]
    recipe = FedAvgRecipe(
        name="service",
        min_clients=NUM_CLIENTS,
        num_rounds=NUM_ROUNDS,
        train_script=str(Path(__file__).with_name("train.py")),
        train_args=f"{num_weights} {about['batches']}",
        framework=FrameworkType.NUMPY,
        server_expected_format=ExchangeFormat.NUMPY,
        model_persistor=MarkingPersistor(folder=folder, num_weights=num_weights),
    )
    give_up = time.monotonic() + 120.0
    while True:
        try:
            environment = ProdEnv(str(kit(Path(folder), ADMIN)), username=ADMIN)
            recipe.execute(environment)
        except Exception as error:
            print(f"Not yet: {error}", flush=True)
            if time.monotonic() > give_up:
                raise
            time.sleep(1.0)
        else:
            return


if __name__ == "__main__":
    main()
