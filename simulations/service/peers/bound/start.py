"""The same bytes over TLS sockets, with no federation: what no service can beat."""

from pathlib import Path
from typing import Any

from simulations.reliability.many_clients import plan
from simulations.service.federation import enrolled
from simulations.service.processes import Process, module
from simulations.service.workload import CLIENTS


def start(about: dict[str, Any]) -> Process:
    """Starts both sides; gives the one that stands for the aggregator."""
    enrolled(Path(about["folder"]), plan(about["weights"]))
    server = module(about, "bound.server")
    for position, name in enumerate(CLIENTS):
        module(about, "bound.client", client=name, position=position)
    return server
