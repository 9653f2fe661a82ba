"""NVFlare as it is provisioned for production: a server, ten clients, mutual TLS."""

import json
from pathlib import Path
from typing import Any

from simulations.service.processes import Process, module, program
from simulations.service.workload import CLIENTS, PORT

ADMIN = "admin@example.com"
PROJECT = "service"
_BUILDERS = (
    ("workspace.WorkspaceBuilder", {"template_file": ["master_template.yml"]}),
    ("static_file.StaticFileBuilder", {"config_folder": "config"}),
    ("cert.CertBuilder", {}),
    ("signature.SignatureBuilder", {}),
)


def start(about: dict[str, Any]) -> Process:
    """Provisions, starts all, and hands the job in; gives the server."""
    folder = Path(about["folder"])
    (folder / "project.yml").write_text(json.dumps(_project()))
    tool = Path(about["python"]).parent / "nvflare"
    command = [tool, "provision", "-p", folder / "project.yml", "-w", folder / "made"]
    if program(about, command, name="provision").wait():
        raise RuntimeError((folder / "provision.log").read_text())
    server = _started(about, "server", "server_train", "localhost")
    for name in CLIENTS:
        _started(about, "client", "client_train", name)
    module(about, "nvflare.job")
    return server


def kit(folder: Path, name: str) -> Path:
    """What was provisioned for one participant."""
    return folder / "made" / PROJECT / "prod_00" / name


def _started(about: dict[str, Any], kind: str, module_name: str, name: str) -> Process:
    """As its start-up kit's ``sub_start.sh`` does, without starting it again."""
    command = [
        *(about["python"], "-u", "-m", f"nvflare.private.fed.app.{kind}.{module_name}"),
        *("-m", str(kit(Path(about["folder"]), name)), "-s", f"fed_{kind}.json"),
        *("--set", "secure_train=true", "org=org", "config_folder=config"),
        *([f"uid={name}"] if kind == "client" else []),
    ]
    variables = {"MALLOC_ARENA_MAX": "4"}
    return program(about, command, name=f"nvflare-{name}", variables=variables)


def _project() -> dict[str, Any]:
    server = {"name": "localhost", "type": "server", "org": "org"}
    admin = {"name": ADMIN, "type": "admin", "org": "org", "role": "project_admin"}
    clients = [{"name": name, "type": "client", "org": "org"} for name in CLIENTS]
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "one vector",
        "participants": [{**server, "fed_learn_port": PORT}, *clients, admin],
        "builders": [
            {"path": f"nvflare.lighter.impl.{path}", "args": args}
            for path, args in _BUILDERS
        ],
    }
