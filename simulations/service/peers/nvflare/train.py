"""One client, by NVFlare's client interface; it runs within the client's process."""

import sys

import nvflare.client as flare
from nvflare.app_common.np.constants import NPConstants

from simulations.service.workload import CLIENTS, Training


def main() -> None:
    """All rounds."""
    flare.init()
    position = CLIENTS.index(flare.get_site_name())
    num_weights, batches = map(int, sys.argv[1:])
    train = Training(position, num_weights, batches)
    while flare.is_running():
        received = flare.receive()
        if received is None:
            return
        weights = train(received.params[NPConstants.NUMPY_KEY])
        flare.send(
            flare.FLModel(
                params={NPConstants.NUMPY_KEY: weights},
                params_type=flare.ParamsType.FULL,
                meta={"NUM_STEPS_CURRENT_ROUND": 1},
            )
        )


if __name__ == "__main__":
    main()
