"""The two programs with numpy in the place of training: no TensorFlow is loaded.

Each function is the whole of one process, which faults may end at any moment.
"""

import hashlib
import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregator.authority import Authority
from aggregator.calls import Served
from aggregator.journal import Journal
from aggregator.journal_repair import backup
from aggregator.rounds import RoundCall, Rounds
from aggregator.server import Server, serving
from clients.agent import Agent, Local
from clients.home import Home
from clients.transport import Transport, caller_of
from clients.work import Cost
from fedtrain.core.errors import FedtrainError
from fedtrain.core.files import write_atomically
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.enrolment import read_invitation
from fedtrain.wire.plan import Plan
from simulations.reliability.faults import befall

COHORT = ("bank-a", "bank-b", "bank-c", "bank-d")
NUM_ROUNDS = 5
SPEC = ArraySpec((4000,), "float32")
RUN_ID = "run"
Weights = npt.NDArray[np.float32]


def plan() -> Plan:
    """What the partners approve."""
    return Plan(
        name="light",
        operator="Reliability",
        software="fedtrain",
        task={"sections": {}, "schema": {}},
        broadcast=(SPEC,),
        contribution=(SPEC,),
        num_rounds=NUM_ROUNDS,
        report_goal=3,
        least_reports=2,
        deadline_s=3.0,
        privacy=None,
        leaves=("numbers",),
    )


def update_of(client_id: str, round_number: int, weights: Weights) -> Weights:
    """One client's contribution: any two differ, and their sum shows its order."""
    seed = hashlib.sha256(f"{client_id}/{round_number}".encode()).digest()
    pattern = np.frombuffer(seed * 500, np.uint32).astype(np.float32) / np.float32(1e7)
    return weights * np.float32(0.3) + pattern[: weights.size]


def next_weights(weights: Weights, total: Weights, num: int) -> Weights:
    """The server's step."""
    return weights - total / np.float32(num)


def fault_free(survivors: list[list[str]]) -> Weights:
    """The final weights of a run without faults and with these survivors."""
    weights = np.zeros(SPEC.shape, np.float32)
    for number, clients in enumerate(survivors):
        total = update_of(clients[0], number, weights)
        for client in clients[1:]:
            total = total + update_of(client, number, weights)
        weights = next_weights(weights, total, len(clients))
    return weights


def save(folder: Path, weights: Weights, survivors: list[list[str]]) -> str:
    """Writes the older of two checkpoints anew; its hash is in it, and returned."""
    content = weights.tobytes()
    facts: dict[str, Any] = {"survivors": survivors}
    sha256 = hashlib.sha256(json.dumps(facts).encode() + content).hexdigest()
    line = json.dumps({**facts, "sha256": sha256}).encode() + b"\n"
    write_atomically(folder / f"checkpoint-{len(survivors) % 2}", line + content)
    return sha256


def load(folder: Path) -> tuple[Weights, list[list[str]]]:
    """The newest checkpoint that is intact; the start of the run if there is none."""
    found = [_checkpoint(path) for path in sorted(folder.glob("checkpoint-?"))]
    intact = [one for one in found if one is not None]
    start = (np.zeros(SPEC.shape, np.float32), [])
    return max(intact, key=lambda one: len(one[1]), default=start)


def aggregate(path: str, home: str, port: int, faults: dict[str, float]) -> None:
    """The aggregator's process.

    Args:
      path: Of the run's folder.
      home: Of the authority.
      port: Where it listens.
      faults: Of this process; see ``befall``.
    """
    _prepare(faults)
    folder = Path(path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        journal = Journal(folder / "journal")
        rounds = Rounds(
            journal, run_id=RUN_ID, plan_sha256=plan().sha256, folder=folder / "spool"
        )
        served = Served(rounds, Authority(Path(home)), plan().canonical())
        with serving(Server(served, address=f"127.0.0.1:{port}")):
            _train(rounds, folder)
            rounds.finish("finished", "all rounds are done")
            (folder / "finished").touch()
            signal.pause()
    except FedtrainError as error:
        _say(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)


def take_part(path: str, invitation: str, faults: dict[str, float]) -> None:
    """A partner's process; ends when the run is finished."""
    _prepare(faults)
    home = Path(path)
    invited = read_invitation(Path(invitation))
    own = Home(home, invited.client_id)
    work = _Work(invited.client_id)
    local = Local(
        work_of=lambda _: work,
        odometer_of=lambda _: _Odometer(home / "charges"),
        tell=lambda event: _say(event.text),
    )
    try:
        with own.alone():
            accept(invited, home)
            with Transport(caller_of(invited, own)) as calls:
                Agent(calls, own, invited, local).run()
    except FedtrainError as error:
        _say(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)


class _Work:
    num_examples = 10

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id

    def cost(self, task: Any) -> Cost:
        return Cost("example", {})

    def compute(self, task: Any, broadcast: Any) -> Any:
        time.sleep(0.05)
        return [update_of(self._client_id, task.round_number, broadcast[0])]

    def forget(self) -> None:
        """There is no key."""


class _Odometer:
    """One line for each answer that was paid for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._charged = path.read_text().split() if path.exists() else []

    def check(self, task: Any, cost: Cost, *, max_epsilon: float) -> None:
        """There is always enough."""

    def charge(self, task: Any, cost: Cost, *, max_epsilon: float) -> None:
        if task.name not in self._charged:
            charged = [*self._charged, task.name]
            write_atomically(self._path, "\n".join(charged))
            self._charged = charged

    def spent(self) -> dict[str, Any]:
        return {"answers": len(self._charged)}

    def head(self) -> dict[str, Any]:
        return {"file": self._path.name, "length": len(self._charged)}

    def expect(self, head: Any) -> None:
        if len(self._charged) < head["length"]:
            raise FedtrainError("The odometer has become shorter.")


def _train(rounds: Rounds, folder: Path) -> None:
    weights, survivors = load(folder)
    while len(survivors) < NUM_ROUNDS:
        number = len(survivors)
        collected = rounds.collect(_call(number, weights))
        (total,) = collected.total()
        rounds.charged(number, {"clients": list(collected.accepted)})
        weights = next_weights(weights, np.asarray(total), len(collected.accepted))
        survivors = [*survivors, list(collected.accepted)]
        sha256 = save(folder, weights, survivors)
        rounds.committed(number, sha256)
        saved = folder / f"backup-{number}"
        saved.unlink(missing_ok=True)
        backup(folder / "journal", saved)


def _call(number: int, weights: Weights) -> RoundCall:
    return RoundCall(
        run_id=RUN_ID,
        round_number=number,
        kind="train",
        cohort=COHORT,
        report_goal=3,
        least_reports=2,
        deadline_s=3.0,
        max_deadlines=100,
        broadcast=[weights],
        contribution=(SPEC,),
        info={},
    )


def _checkpoint(path: Path) -> tuple[Weights, list[list[str]]] | None:
    line, _, content = path.read_bytes().partition(b"\n")
    try:
        facts = json.loads(line)
        given = facts.pop("sha256")
    except (ValueError, KeyError, AttributeError):
        return None
    if hashlib.sha256(json.dumps(facts).encode() + content).hexdigest() != given:
        return None
    return np.frombuffer(content, np.float32), facts["survivors"]


def _prepare(faults: dict[str, float]) -> None:
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow was loaded; the light programs must not.")
    befall(faults)


def _say(text: str) -> None:
    print(f"{time.monotonic():.2f} {text}", file=sys.stderr)
