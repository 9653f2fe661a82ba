"""Measures a federation's rounds between processes: time, bytes, memory, processor.

Ten clients and one vector on loopback with TLS: fedtrain's aggregator, Flower's
SuperLink and NVFlare's server, beside the same bytes over plain TLS sockets. Needs
Linux, and either root or user namespaces; uv makes the peers' environments.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.core.errors import FedtrainError
from simulations.service.contained import contained
from simulations.service.systems import SYSTEMS, System, chosen
from simulations.service.table import table
from simulations.service.workload import TOLERANCE, expected
from simulations.speed.environments import interpreter

_PEERS = Path(__file__).parent / "peers"


def main() -> None:
    """Measures what the command line names, one system after the other."""
    given = _arguments()
    systems = chosen(given.only)
    pythons = {s.peer: interpreter(s.peer, peers=_PEERS) for s in systems}
    if given.prepare:
        return
    results: dict[str, Any] = {}
    for system in systems:
        results[system.peer] = measured(system, str(pythons[system.peer]), given)
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "results.json").write_text(json.dumps(results, indent=1))
        print(json.dumps({system.name: results[system.peer]}), flush=True)
    text = table(results, given.weights)
    (given.output / "table.md").write_text(text)
    print(text)


def measured(system: System, python: str, given: argparse.Namespace) -> dict[str, Any]:
    """One system's figures, or why there are none."""
    workload = {"weights": given.weights, "batches": given.batches}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        about = {"folder": folder, "python": python, **workload}
        try:
            found: dict[str, Any] = contained(
                system.peer, about, timeout_s=given.timeout
            )
        except FedtrainError as error:
            return {"failure": str(error)}
        weights = np.load(Path(folder) / "weights.npy")
    wanted = expected(given.weights, given.batches)
    found["difference"] = float(np.abs(weights - wanted).max())
    if not found["difference"] <= TOLERANCE:
        return {"failure": f"other weights: {found['difference']:.1e} away"}
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ",".join(SYSTEMS)
    parser.add_argument("--only", type=lambda text: text.split(","), default=names)
    parser.add_argument("--weights", type=int, default=10_000_000)
    parser.add_argument(
        "--batches", type=int, default=0, help="steps of training at each client"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="s a system")
    parser.add_argument("--folder", type=Path, help="of the disk that is written to")
    parser.add_argument("--output", type=Path, default=Path("runs") / "service")
    parser.add_argument(
        "--prepare", action="store_true", help="only make the environments"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
