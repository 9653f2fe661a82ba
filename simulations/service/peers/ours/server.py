"""The aggregator as it serves: journal, spool, TLS, signatures; numpy takes the step.

What is left out is TensorFlow, the operator's page and the ledger. The weights are
saved durably after each round, as checkpoints are.
"""

import time
from pathlib import Path

import numpy as np

from aggregator.authority import Authority
from aggregator.calls import Served
from aggregator.journal import Journal
from aggregator.rounds import RoundCall, Rounds
from aggregator.server import Server, serving
from fedtrain.core.files import write_atomically
from fedtrain.wire.arrays import ArraySpec
from simulations.reliability.many_clients import plan
from simulations.service.workload import (
    CLIENTS,
    NUM_ROUNDS,
    PORT,
    Marks,
    Weights,
    arguments,
    start,
)

_RUN_ID = "run"


def main() -> None:
    """All rounds."""
    about = arguments()
    folder, agreed = Path(about["folder"]), plan(about["weights"])
    rounds = Rounds(
        Journal(folder / "journal"),
        run_id=_RUN_ID,
        plan_sha256=agreed.sha256,
        folder=folder / "spool",
    )
    served = Served(rounds, Authority(folder / "authority"), agreed.canonical())
    server = Server(served, address=f"127.0.0.1:{PORT}")
    marks = Marks(folder)
    with serving(server):
        while len(server.traffic.partners) < len(CLIENTS):
            time.sleep(0.05)
        marks.idle()
        weights = _trained(rounds, start(about["weights"]), marks, folder)
        marks.done(weights)


def _trained(rounds: Rounds, weights: Weights, marks: Marks, folder: Path) -> Weights:
    for number in range(NUM_ROUNDS):
        collected = rounds.collect(_call(number, weights))
        (total,) = collected.total()
        total /= np.float32(len(collected.accepted))
        weights -= total
        del total
        write_atomically(folder / "checkpoint", memoryview(weights).cast("B"))
        rounds.committed(number, f"{number:064x}")
        marks.round_done()
    return weights


def _call(number: int, weights: Weights) -> RoundCall:
    return RoundCall(
        run_id=_RUN_ID,
        round_number=number,
        kind="train",
        cohort=CLIENTS,
        report_goal=len(CLIENTS),
        least_reports=len(CLIENTS),
        deadline_s=600.0,
        max_deadlines=1,
        broadcast=[weights],
        contribution=(ArraySpec.of(weights),),
        info={},
    )


if __name__ == "__main__":
    main()
