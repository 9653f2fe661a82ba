"""``fedtrain-aggregator demo``: a whole federation on one machine, over mutual TLS."""

import contextlib
import time
from pathlib import Path
from typing import Any

from aggregator.demo_data import DATA_AND_MODEL, PARTNERS, DemoData, write_demo_data
from aggregator.demo_shell import Shell
from fedtrain.cli.output import note
from fedtrain.core.addresses import free_addresses
from fedtrain.core.files import write_atomically

_PROJECT = """\
# Written by `fedtrain-aggregator demo`: {data}.
name = "demo"
seed = 0

{data_and_model}

[rounds]
num_rounds = {num_rounds}

[client]
learning_rate = {learning_rate}
sampling_rate = {sampling_rate}
local_steps = {local_steps}
expected_batch_size = {expected_batch_size}

[privacy]
unit = "example"
trust = "local"              # every partner adds the whole noise itself
neighboring_relation = "add_or_remove_one"
delta = {delta}
sampling = "poisson"
clipping_norm = 2.0
target_epsilon = {epsilon}

[service]
clients = {clients}
rows_per_client = {rows_per_client}
address = "{address}"
page = "{page}"
deadline_s = 60.0
"""


def demo(folder: Path, *, num_rounds: int = 5, epsilon: float = 8.0) -> dict[str, Any]:
    """Enrols three partners, runs their rounds, and shows what left each of them.

    Args:
      folder: New; keeps everything: keys, journal, logs, the run.
      num_rounds: Of training.
      epsilon: Of the plan.

    Returns:
      Where things are, and how long it took.

    Raises:
      DemoFailedError: If a step fails; it is named, with its last words.
    """
    began = time.monotonic()
    folder.mkdir(parents=True)
    data = write_demo_data(folder)
    _write_project(folder, data, num_rounds=num_rounds, epsilon=epsilon)
    note(f"Data: {data.name}. Everything is in {folder}.\n")
    shell = Shell(folder)
    shell.run("fedtrain-aggregator", "init", "federation.toml", "--operator", "demo")
    for partner in PARTNERS:
        shell.run("fedtrain-client", "request", partner)
        shell.run("fedtrain-aggregator", "admit", f"{partner}.request", "--yes")
        if partner == PARTNERS[0]:  # all three are asked to approve the same plan
            shell.run("fedtrain-client", "review", f"{partner}.invitation")
        shell.run("fedtrain-client", "approve", f"{partner}.invitation")
    with contextlib.ExitStack() as stack:
        for partner in PARTNERS:
            files = (f"{partner}.invitation", "--data", f"{partner}.csv")
            joined = shell.background(partner, "fedtrain-client", "join", *files)
            stack.enter_context(joined)
        shell.run("fedtrain-aggregator", "serve")
        shell.wait()
    for partner in PARTNERS:
        shell.run("fedtrain-client", "audit", "verify", partner)
    shell.run("fedtrain-aggregator", "status")
    return {"folder": str(folder), "seconds": round(time.monotonic() - began, 1)}


def _write_project(
    folder: Path, data: DemoData, *, num_rounds: int, epsilon: float
) -> None:
    address, page = free_addresses(2)
    text = _PROJECT.format(
        data=data.name,
        data_and_model=DATA_AND_MODEL,
        num_rounds=num_rounds,
        epsilon=epsilon,
        clients=list(PARTNERS),
        address=address,
        page=page,
        **data.settings._asdict(),
    ).replace("'", '"')
    write_atomically(folder / "federation.toml", text)
