"""The two programs themselves, started as an operator and its partners start them."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import FedtrainError
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from simulations.reliability.nursery import Child, Nursery
from simulations.reliability.trial import AGGREGATOR

_ROOT = Path(__file__).resolve().parents[2]
_ROWS = 120
_CLIP = 4.5
_ENVIRONMENT = {
    "PYTHONPATH": str(_ROOT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "GRPC_VERBOSITY": "NONE",
}
_CHILD = (
    "from simulations.reliability.faults import befall; befall({faults}); "
    "from fedtrain.cli.worker_process import end_with; end_with({parent}); "
    "from {module}.cli import main; main()"
)
_PLAIN = """\
learning_rate = 0.1
batch_size = 16
local_epochs = 1
"""
_PRIVATE = """\
learning_rate = 0.1
sampling_rate = 0.25
local_steps = 3
expected_batch_size = 30.0

[privacy]
unit = "example"
trust = "local"
neighboring_relation = "add_or_remove_one"
delta = 1e-3
sampling = "poisson"
clipping_norm = 1.0
noise_multiplier = 2.0
"""
_PROJECT = """\
name = "reliability"
seed = 3

[data]
path = "partners"
schema_path = "schema.json"

[model]
name = "dense_classifier"
hidden = [16]

[rounds]
num_rounds = {num_rounds}

[client]
{client}
[service]
clients = {clients}
rows_per_client = {rows}
address = "{address}"
public_address = "{public_address}"
page = "{page}"
{service}
"""


class Program:
    """A program that runs.

    Args:
      process: Its own; what it prints is a pipe.
      log: What that is added to.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid = process.pid
        self.exitcode: int | None = None
        self._process = process
        # Not the file itself: a full disk of the program's is not that of its log.
        copy = (process.stdout, log)
        threading.Thread(target=_copied, args=copy, daemon=True).start()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        self.exitcode = self._process.poll()
        return self.exitcode

    def wait(self) -> int:
        """Returns its exit code once it has ended."""
        self.exitcode = self._process.wait()
        return self.exitcode

    def kill(self) -> None:
        """Kills it, unless it has ended, and waits."""
        self._process.kill()
        self.wait()


class Site:
    """A federation on this machine, each party with a state folder of its own.

    Args:
      folder: Where all of it is.
      partners: Their names.
      nursery: Forks the programs; without it each is started from nothing.

    Attributes:
      address: Of the aggregator.
      page: Of the operator's page.
    """

    def __init__(
        self, folder: Path, partners: tuple[str, ...], nursery: Nursery | None = None
    ) -> None:
        self.folder = folder
        self.partners = partners
        self._nursery = nursery
        self.address, self.page = free_addresses(2)

    @property
    def home(self) -> Path:
        """The operator's."""
        return self.folder / "aggregator-home"

    def partner_home(self, name: str) -> Path:
        """A partner's."""
        return self.state(name) / "clients" / name

    def state(self, name: str) -> Path:
        """Where ledgers and homes of a party are."""
        return self.folder / "state" / name

    def make(
        self,
        *,
        num_rounds: int,
        is_private: bool,
        service: str,
        public_address: str | None = None,
    ) -> None:
        """Writes rows and project, and has every partner enrol and approve."""
        (self.folder / "logs").mkdir(parents=True)
        self._write_rows()
        text = _PROJECT.format(
            num_rounds=num_rounds,
            client=_PRIVATE if is_private else _PLAIN,
            clients=list(self.partners),
            rows=_ROWS,
            address=self.address,
            public_address=public_address or self.address,
            page=self.page,
            service=service,
        )
        project = self.folder / "federation.toml"
        project.write_text(text.replace("'", '"'))
        self.expect(AGGREGATOR, "init", "federation.toml", "--operator", "reliability")
        for name in self.partners:
            invitation = f"{name}.invitation"
            self.expect(name, "request", name)
            self.expect(AGGREGATOR, "admit", f"{name}.request", "--yes")
            allowed = ("--max-epsilon", "inf", "--allow-central")
            self.expect(name, "approve", invitation, *allowed, "--allow-exact-metrics")

    def begin(
        self, name: str, faults: dict[str, float] | None = None
    ) -> Program | Child:
        """Serves, or takes part."""
        if name == AGGREGATOR:
            return self._started(name, faults or {}, ["serve"])
        join = ["join", f"{name}.invitation", "--data", f"{name}.csv"]
        return self._started(name, faults or {}, join)

    def run(self, name: str, *arguments: str) -> int:
        """One command of a party, waited for; its exit code."""
        return self._started(name, {}, list(arguments)).wait()

    def expect(self, name: str, *arguments: str) -> None:
        """One command of a party, which must end well."""
        code = self.run(name, *arguments)
        if code:
            raise FedtrainError(
                f"`{name} {' '.join(arguments)}` ended with {code}; see "
                f"{self.folder / 'logs' / name}."
            )

    def _started(
        self, name: str, faults: dict[str, float], arguments: list[str]
    ) -> Program | Child:
        module = "aggregator" if name == AGGREGATOR else "clients"
        log = self.folder / "logs" / name
        own = {**_ENVIRONMENT, "FEDTRAIN_STATE_DIR": str(self.state(name))}
        if self._nursery is not None:
            setting = {"folder": self.folder, "environment": own}
            given = [module, arguments, setting, faults]
            return self._nursery.start("program", given, log)
        child = _CHILD.format(faults=faults, parent=os.getpid(), module=module)
        process = subprocess.Popen(
            [sys.executable, "-c", child, *arguments],
            cwd=self.folder,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return Program(process, log)

    def _write_rows(self) -> None:
        chance = np.random.default_rng(7)
        for name in self.partners:
            rows = chance.normal(size=(_ROWS, 4)).round(3).clip(-_CLIP, _CLIP)
            frame = pd.DataFrame(rows, columns=list("abcd"))
            frame["label"] = (frame["a"] + frame["b"] > 0).astype(int)
            frame.to_csv(self.folder / f"{name}.csv", index=False)
        limits = pd.DataFrame([[-_CLIP] * 4 + [0], [_CLIP] * 4 + [1]])
        limits.columns = frame.columns
        schema = infer_schema(table_of(limits), label="label")
        schema.with_source("declared").save(self.folder / "schema.json")


def _copied(source: IO[bytes], log: Path) -> None:
    with log.open("ab", buffering=0) as file:
        while content := source.read1(65536):  # type: ignore[attr-defined] # buffered
            file.write(content)
