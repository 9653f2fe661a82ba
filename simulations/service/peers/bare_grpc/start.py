"""The same bytes over gRPC with mutual TLS, with no federation: what gRPC costs."""

from pathlib import Path
from typing import Any

from simulations.reliability.many_clients import plan
from simulations.service.federation import enrolled
from simulations.service.processes import Process, module
from simulations.service.workload import CLIENTS


def start(about: dict[str, Any]) -> Process:
    """Starts both sides; gives the one that stands for the aggregator."""
    enrolled(Path(about["folder"]), plan(about["weights"]))
    server = module(about, "bare_grpc.server")
    for position, name in enumerate(CLIENTS):
        module(about, "bare_grpc.client", client=name, position=position)
    return server
