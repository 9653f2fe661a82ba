"""Weighs the whole aggregator: ``fedtrain-aggregator serve`` with TensorFlow.

Ledger, page, checkpoints and the server's step are those of a real run with
differential privacy. Ten light agents answer it from one other process, so their memory
is not weighed. The same run of a model of a few weights is what "idle" means here: all
programs are loaded and have run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.home import Federation, federation_in
from clients.agent import Agent, Local
from clients.home import Home
from clients.policy import policy_for, write_policy
from clients.transport import Transport, caller_of
from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import FedtrainError
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import Array
from fedtrain.wire.enrolment import EnrolmentRequest, Invitation
from fedtrain.wire.identity import new_keys
from fedtrain.wire.plan import Plan
from simulations.service.workload import CLIENTS

_COLUMNS = 100
_SMALL = 1_000
_ROUNDS = 4
_PROGRAM = "from aggregator.cli import main; main()"
_PROJECT = """\
name = "whole"
seed = 0
[data]
path = "rows"
schema_path = "schema.json"
test_path = "test.csv"
test_sensitivity = "public"
[model]
name = "dense_classifier"
hidden = {hidden}
[rounds]
num_rounds = {num_rounds}
[client]
learning_rate = 0.1
sampling_rate = 0.1
local_steps = 1
expected_batch_size = 100.0
[privacy]
unit = "example"
trust = "local"
neighboring_relation = "add_or_remove_one"
delta = 1e-5
sampling = "poisson"
clipping_norm = 1.0
noise_multiplier = 1.0
[service]
clients = {clients}
rows_per_client = 1000
address = "{address}"
page = "{page}"
deadline_s = 600.0
"""


def main() -> None:
    """Weighs the small run and the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="of the disk that is written to")
    given = parser.parse_args()
    small, found = (weighed(n, folder=given.folder) for n in (_SMALL, given.weights))
    above = found["peak_bytes"] - small["peak_bytes"]
    facts = {**found, "small_peak_bytes": small["peak_bytes"], "above_bytes": above}
    times = above / found["model_bytes"]
    print(json.dumps({**facts, "times_the_model": round(times, 2)}))


def weighed(num_weights: int, *, folder: Path | None) -> dict[str, Any]:
    """One run of about ``num_weights`` weights, and the aggregator's peak memory.

    Raises:
      FedtrainError: If the aggregator or a client fails.
    """
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made)
        os.environ["FEDTRAIN_STATE_DIR"] = str(path / "state")
        _write_project(path, num_weights)
        _aggregator(path, "init", "federation.toml").wait()
        federation = federation_in(path / "aggregator-home")
        with ThreadPoolExecutor(len(CLIENTS)) as pool:
            server = _aggregator(path, "serve")
            try:
                agents = [
                    pool.submit(_take_part, federation, path, name) for name in CLIENTS
                ]
                peak = _peak_bytes(server)
            finally:
                server.kill()
            if server.returncode:
                raise FedtrainError((path / "serve.log").read_text()[-2000:])
            for agent in agents:
                agent.result()
        (summary,) = federation.runs.glob("*/summary.json")
        seconds = json.loads(summary.read_text())["seconds_in_rounds"] / _ROUNDS
        sent = sum(spec.plain_bytes for spec in federation.plan().broadcast)
        return {
            "model_bytes": sent,
            "peak_bytes": peak,
            "seconds_a_round": round(seconds, 2),
        }


def _aggregator(folder: Path, verb: str, *arguments: str) -> "subprocess.Popen[bytes]":
    with (folder / f"{verb}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, verb, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _peak_bytes(server: "subprocess.Popen[bytes]") -> int:
    """The kernel's own high-water mark, read until the process ends."""
    peak = 0
    while server.poll() is None:
        for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, 1024 * int(line.split()[1]))
        time.sleep(0.05)
    return peak


def _write_project(folder: Path, num_weights: int) -> None:
    from fedtrain.data.schema_inference import infer_schema  # noqa: PLC0415 - slow

    names = [f"x{position}" for position in range(_COLUMNS)]
    rows = np.random.default_rng(0).uniform(-1, 1, [200, _COLUMNS])
    table: dict[str, Any] = dict(zip(names, rows.T, strict=True))
    table["label"] = np.arange(200) % 2
    schema = infer_schema(table, label="label").with_source("declared")
    schema.save(folder / "schema.json")
    lines = [
        ",".join(table),
        *(",".join(map(str, row)) for row in zip(*table.values(), strict=True)),
    ]
    (folder / "test.csv").write_text("\n".join(lines) + "\n")
    address, page = free_addresses(2)
    text = _PROJECT.format(
        hidden=_hidden(num_weights),
        num_rounds=_ROUNDS,
        clients=json.dumps(CLIENTS),
        address=address,
        page=page,
    )
    (folder / "federation.toml").write_text(text)


def _hidden(num_weights: int) -> list[int]:
    """Two equal layers: 100 n + n^2 weights, and a few."""
    half = _COLUMNS / 2
    return [max(int((half**2 + num_weights) ** 0.5 - half), 1)] * 2


def _take_part(federation: Federation, folder: Path, name: str) -> None:
    home = Home(folder / name, name)
    request = EnrolmentRequest.of(name, new_keys(home.path))
    invitation: Invitation = federation.authority().admit(request, federation.terms())
    accept(invitation, home.path)
    plan = federation.plan()
    policy = policy_for(plan, max_epsilon=float("inf"))
    write_policy(home.policy_path, policy.approving(plan))
    local = Local(
        work_of=_Light, odometer_of=lambda _: _Odometer(), tell=lambda event: None
    )
    with home.alone(), Transport(caller_of(invitation, home)) as calls:
        Agent(calls, home, invitation, local).run()


class _Light:
    """Answers with small numbers, and looks at none."""

    num_examples = 1000
    kept = b""

    def __init__(self, plan: Plan) -> None:
        self._specs = plan.contribution

    def cost(self, task: Any) -> None:
        """Nothing is spent: there are no rows."""

    def compute(self, task: Any, broadcast: Any) -> list[Array]:
        return [np.full(spec.shape, 1e-3, spec.dtype) for spec in self._specs]

    def forget(self) -> None:
        """There is no key."""


class _Odometer:
    def head(self) -> dict[str, Any]:
        return {"file": "none", "length": 0}


if __name__ == "__main__":
    main()
