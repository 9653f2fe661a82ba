"""Flower's SuperLink and ten SuperNodes, with its TLS: the server shows a certificate.

Flower has no client certificates; its nodes may sign with keys that the operator
registers one by one, which is left out here, in its favour.
"""

import json
from pathlib import Path
from typing import Any

from simulations.reliability.many_clients import plan
from simulations.service.federation import enrolled
from simulations.service.processes import Process, program
from simulations.service.workload import CLIENTS, PORT

_APP = Path(__file__).parent / "app"
_FIRST_PORT = 9500  # of the SuperNodes' own interfaces to their apps


def start(about: dict[str, Any]) -> Process:
    """Starts them, and hands in the run; gives the SuperLink."""
    folder = Path(about["folder"])
    enrolled(folder, plan(about["weights"]))
    own = {
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{Path(about['python']).parent}:/usr/bin:/bin",
    }
    server = program(about, _superlink(about), name="superlink", variables=own)
    for position in range(len(CLIENTS)):
        command = _supernode(about, position)
        program(about, command, name=f"supernode-{position}", variables=own)
    program(about, _run(about), name="run", variables=own)
    return server


def _superlink(about: dict[str, Any]) -> list[str]:
    folder = about["folder"]
    return [
        *(
            _tool(about, "flower-superlink"),
            "--disable-runtime-dependency-installation",
        ),
        *("--ssl-ca-certfile", f"{folder}/authority.pem"),
        *("--ssl-certfile", f"{folder}/server.pem"),
        *("--ssl-keyfile", f"{folder}/server.key"),
        *("--host", "127.0.0.1", "--port", str(PORT)),
    ]


def _supernode(about: dict[str, Any], position: int) -> list[str]:
    return [
        *(_tool(about, "flower-supernode"), "--superlink", f"127.0.0.1:{PORT}"),
        *("--root-certificates", f"{about['folder']}/authority.pem"),
        *("--port", str(_FIRST_PORT + position)),
        *("--node-config", f"position={position}"),
    ]


def _run(about: dict[str, Any]) -> list[str]:
    """Hands the app in, as often as it takes until the SuperLink is there."""
    home = Path(about["folder"]) / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "here"\n\n[superlink.here]\n'
        f'address = "127.0.0.1:{PORT}"\n'
        f'root-certificates = "{about["folder"]}/authority.pem"\n'
    )
    known = {name: about[name] for name in ("folder", "weights", "batches")}
    config = home / "about.toml"
    config.write_text(f"about = '{json.dumps(known)}'\n")
    command = f"{_tool(about, 'flwr')} run {_APP} here --run-config {config}"
    return ["/bin/sh", "-c", f"until {command}; do sleep 1; done"]


def _tool(about: dict[str, Any], name: str) -> str:
    return str(Path(about["python"]).parent / name)
