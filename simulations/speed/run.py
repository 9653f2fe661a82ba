"""Compares the speed of federated simulators on the same rounds, on this machine.

Runs fedtrain, its bound, TensorFlow Federated, Flower, pfl and FedJAX in turns and
writes ``results.json``, ``table.md`` and ``ratios.png`` into the output folder.
``FEDTRAIN_DATA_DIR`` names the folder of data files; uv makes the peers' environments.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from simulations.speed import comparison
from simulations.speed.environments import interpreter
from simulations.speed.measure import Measurement, measured
from simulations.speed.process import MeasuredProcess
from simulations.speed.systems import PEERS, System, systems
from simulations.speed.workload import save
from simulations.speed.workloads import WORKLOADS


def main() -> None:
    """Measures what the command line names, and writes after each workload."""
    given = _arguments()
    pythons = {peer: interpreter(peer) for peer in ("ours", "bound", *given.peers)}
    for name in given.only:
        results = _measure(name, pythons, given)
        comparison.write(given.output, name, results)
        print(comparison.table_of(name, results), flush=True)


def _measure(
    name: str, pythons: dict[str, Path], given: argparse.Namespace
) -> dict[str, Measurement]:
    workload = WORKLOADS[name]()
    with tempfile.TemporaryDirectory() as folder:
        start = partial(_start, pythons, save(workload, Path(folder)))
        return measured(
            workload,
            systems(name, given.peers, variants=given.variants),
            start,
            num_stretches=given.rounds,
            lock=given.lock,
        )


def _start(
    pythons: dict[str, Path], folder: Path, system: System, settings: dict[str, Any]
) -> MeasuredProcess:
    module = f"simulations.speed.peers.{system.peer}.worker"
    return MeasuredProcess(pythons[system.peer], module, folder, settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=_names, default=list(WORKLOADS))
    parser.add_argument("--peers", type=_names, default=list(PEERS))
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each system after warm-up"
    )
    parser.add_argument("--output", type=Path, default=Path("runs") / "speed")
    parser.add_argument(
        "--no-variants",
        dest="variants",
        action="store_false",
        help="without fedtrain's rounds with privacy or in lower precision",
    )
    parser.add_argument("--lock", type=Path, help="a file locked while timing")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    main()
