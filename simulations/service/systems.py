"""What is measured, and what each is."""

from typing import NamedTuple

from fedtrain.core.errors import ConfigError


class System(NamedTuple):
    """One that carries the rounds out.

    Attributes:
      name: In tables.
      peer: Its folder under ``peers``; a locked environment's if it has one.
      what: A sentence.
    """

    name: str
    peer: str
    what: str


SYSTEMS = {
    system.peer: system
    for system in (
        System(
            "TLS sockets",
            "bound",
            "the same bytes over bare sockets with mutual TLS, summed off the clock",
        ),
        System(
            "bare gRPC",
            "bare_grpc",
            "the same bytes over gRPC's streams with mutual TLS, summed off the clock",
        ),
        System(
            "fedtrain",
            "ours",
            "aggregator and agents: mutual TLS, signed requests, journal, every "
            "contribution and checkpoint synced to the disk",
        ),
        System(
            "Flower",
            "flower",
            "SuperLink and SuperNodes, TLS without client certificates, in memory",
        ),
        System(
            "NVFlare",
            "nvflare",
            "provisioned server and clients, mutual TLS, FedAvg recipe, saves weights",
        ),
    )
}
BOUND = "bound"


def chosen(peers: list[str]) -> list[System]:
    """The systems of these names, in the order of the table."""
    unknown = sorted(set(peers) - set(SYSTEMS))
    if unknown:
        known = ", ".join(SYSTEMS)
        raise ConfigError(f"only has {unknown[0]!r}; known are {known}.")
    return [system for peer, system in SYSTEMS.items() if peer in peers]
