"""What is compared, with the settings that are tried for each, and what is left out."""

from dataclasses import dataclass, field
from typing import Any

from fedtrain.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class System:
    """Something that carries rounds out.

    Attributes:
      name: For tables.
      peer: Its folder under ``peers``.
      settings: Options that are tried; the fastest is measured.
      workloads: Where it takes part; everywhere if empty.
      changes_update: Whether its update is meant to differ (noise, lower precision).
    """

    name: str
    peer: str
    settings: tuple[dict[str, Any], ...] = field(default=({},))
    workloads: tuple[str, ...] = ()
    changes_update: bool = False


OURS = System(name="fedtrain", peer="ours")
BOUND = System(name="bound", peer="bound", settings=({"intra": 1}, {"intra": 0}))
VARIANTS = tuple(
    System(
        name=f"fedtrain, {name}",
        peer="ours",
        settings=(settings,),
        workloads=workloads,
        changes_update=True,
    )
    for name, settings, workloads in (
        ("client-level DP", {"variant": "client_dp"}, ("mlp", "cnn")),
        ("bfloat16", {"runtime": {"precision": "bfloat16"}}, ("cnn",)),
    )
)
PEERS = {
    "tff": (System(name="TFF", peer="tff"),),
    "flower": (System(name="Flower", peer="flower"),),
    "pfl": (
        System(name="pfl", peer="pfl", settings=({"threads": 1}, {"threads": 2})),
        System(
            name="pfl, bfloat16",
            peer="pfl",
            settings=({"threads": 1, "bfloat16": 1}, {"threads": 2, "bfloat16": 1}),
            workloads=("cnn",),
            changes_update=True,
        ),
    ),
    "fedjax": (
        System(name="FedJAX", peer="fedjax", workloads=("mlp", "cnn", "writers")),
        System(
            name="FedJAX",
            peer="fedjax",
            settings=({"unroll": 1}, {"unroll": 8}),
            workloads=("lstm",),
        ),
    ),
}
LEFT_OUT = {
    ("Flower", "writers"): "539 Keras fits through Ray take a minute and more a round",
}


def systems(workload: str, peers: list[str], *, variants: bool) -> list[System]:
    """Who takes part in ``workload``: ours first, the bound second."""
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        raise ConfigError(f"peers has {unknown[0]!r}; known are {', '.join(PEERS)}.")
    chosen = [OURS, BOUND, *(VARIANTS if variants else ())]
    for peer in peers:
        chosen += PEERS[peer]
    return [
        system
        for system in chosen
        if workload in (system.workloads or (workload,))
        and (system.name, workload) not in LEFT_OUT
    ]
