"""fedtrain's aggregator and agents, with numpy in the place of training."""

from pathlib import Path
from typing import Any

from simulations.reliability.many_clients import plan
from simulations.service.federation import enrolled
from simulations.service.processes import Process, module
from simulations.service.workload import CLIENTS


def start(about: dict[str, Any]) -> Process:
    """Starts the aggregator and ten agents; gives the aggregator."""
    enrolled(Path(about["folder"]), plan(about["weights"]))
    server = module(about, "ours.server")
    for position, name in enumerate(CLIENTS):
        module(about, "ours.client", client=name, position=position)
    return server
