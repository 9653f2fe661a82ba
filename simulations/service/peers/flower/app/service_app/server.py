"""Flower's FedAvg strategy; its evaluation function says when a round is over."""

import json
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from simulations.service.workload import NUM_CLIENTS, NUM_ROUNDS, Marks, start

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    about = json.loads(str(context.run_config["about"]))
    marks = Marks(Path(about["folder"]))
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=NUM_CLIENTS,
        min_available_nodes=NUM_CLIENTS,
    )
    marks.idle()

    def note(number: int, arrays: ArrayRecord) -> None:
        del arrays
        if number:
            marks.round_done()

    found = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([start(about["weights"])]),
        num_rounds=NUM_ROUNDS,
        evaluate_fn=note,
    )
    (weights,) = found.arrays.to_numpy_ndarrays()
    marks.done(weights)
