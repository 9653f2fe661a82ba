"""Starts a system's processes; the namespace that they are in ends them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Process = subprocess.Popen[Any]


def module(about: Mapping[str, Any], which: str, **more: Any) -> Process:
    """Runs ``simulations.service.peers.WHICH`` with what it is to know."""
    told = json.dumps({**about, **more})
    command = [about["python"], "-m", f"simulations.service.peers.{which}", told]
    return program(about, command, name=more.get("client", which))


def program(
    about: Mapping[str, Any],
    command: Sequence[str | Path],
    *,
    name: str,
    variables: Mapping[str, str] | None = None,
) -> Process:
    """Runs a command; what it prints goes to ``NAME.log`` in the run's folder."""
    with (Path(about["folder"]) / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=about["folder"],
            env=_environment() | (dict(variables) if variables else {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _environment() -> dict[str, str]:
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": str(_ROOT)}
