"""Each peer's own environment, made by uv from the lock beside its worker."""

import os
import subprocess
import sys
from pathlib import Path

_PEERS = Path(__file__).parent / "peers"
_TORCH = "torch==2.13.0+cpu"
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def interpreter(peer: str, *, peers: Path = _PEERS) -> Path:
    """The Python of ``peer``'s environment, made or brought up to date first.

    A peer without a lock runs where this does. Environments lie in
    ``FEDTRAIN_SPEED_ENVIRONMENTS``, or else in the user's cache. PyTorch's build for
    CPUs is not in the package index: it is taken from the folder that
    ``FEDTRAIN_WHEELS`` names, or else from PyTorch's own index.
    """
    if not (peers / peer / "uv.lock").exists():
        return Path(sys.executable)
    name = peer if peers == _PEERS else f"{peers.parent.name}-{peer}"
    folder = environments_dir() / name
    own = {"UV_PROJECT_ENVIRONMENT": str(folder), "VIRTUAL_ENV": str(folder)}
    # Inexact: it would take PyTorch away again.
    sync = ["uv", "sync", "--frozen", "--inexact", "--quiet"]
    _run([*sync, "--project", str(peers / peer)], own)
    if peer == "pfl":
        _run(["uv", "pip", "install", "--quiet", "--no-deps", _TORCH, *_source()], own)
    return folder / "bin" / "python"


def environments_dir() -> Path:
    """Where the environments lie: outside the repository."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    default = Path(cache) / "fedtrain" / "speed"
    return Path(os.environ.get("FEDTRAIN_SPEED_ENVIRONMENTS") or default)


def _source() -> list[str]:
    wheels = os.environ.get("FEDTRAIN_WHEELS")
    return ["--find-links", wheels] if wheels else ["--index", _TORCH_INDEX]


def _run(command: list[str], variables: dict[str, str]) -> None:
    subprocess.run(command, check=True, env={**os.environ, **variables})
