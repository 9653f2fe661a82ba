"""The light programs as a ``World``: their keys, their folders, their right end."""

import contextlib
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.authority import Authority, Terms, init
from aggregator.events import Event
from aggregator.journal import stored_events
from aggregator.journal_repair import repair, restore
from clients.policy import policy_for, write_policy
from fedtrain.core.errors import JournalError
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys
from simulations.reliability import light
from simulations.reliability.nursery import Child, Nursery
from simulations.reliability.proxy import Proxy
from simulations.reliability.trial import AGGREGATOR, Process

_RESTORED, _BEGUN_ANEW = "(restored)", "(journal begun anew)"


class Federation:
    """Keys and certificates, made once, and what starts processes. Close it.

    Args:
      folder: For what all runs share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Bound, not listened on: nobody else is given the port while it is not used.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        self.proxy = Proxy(self.port, np.random.default_rng(0))
        self.nursery = Nursery(light.__name__)
        authority = init(folder / "authority", name="light", hosts=["localhost"])
        for name in light.COHORT:
            self._enrol(authority, name)

    def close(self) -> None:
        """Ends all processes, and gives the ports back."""
        self.nursery.close()
        self.proxy.close()
        self._held.close()

    def _enrol(self, authority: Authority, name: str) -> None:
        plan, home = light.plan(), self.folder / "homes" / name
        terms = Terms(plan, f"127.0.0.1:{self.proxy.port}", "localhost")
        request = EnrolmentRequest.of(name, new_keys(home))
        invitation = authority.admit(request, terms)
        (self.folder / f"{name}.invitation").write_bytes(invitation.to_bytes())
        policy = policy_for(plan, max_epsilon=float("inf"))
        write_policy(home / "policy.toml", policy.approving(plan))


class LightWorld:
    """One run; every run gets a copy of the homes.

    Args:
      federation: What all runs share.
      folder: Of the run.
    """

    partners = light.COHORT
    pace = 1.0

    def __init__(self, federation: Federation, folder: Path) -> None:
        self.folder = folder
        self.proxy = federation.proxy
        self._federation = federation
        (folder / "logs").mkdir(parents=True)
        shutil.copytree(federation.folder / "homes", folder / "homes")

    def start(self, name: str, faults: dict[str, float]) -> Child:
        """See ``World.start``."""
        shared = self._federation.folder
        if name == AGGREGATOR:
            (self.folder / "finished").unlink(missing_ok=True)
            arguments = [self.folder, shared / "authority", self._federation.port]
            program = "aggregate"
        else:
            arguments = [self.folder / "homes" / name, shared / f"{name}.invitation"]
            program = "take_part"
        log = self.folder / "logs" / name
        return self._federation.nursery.start(program, [*arguments, faults], log)

    def poll(self) -> None:
        """See ``World.poll``."""
        self._federation.nursery.poll()

    def written_last(self) -> list[Path]:
        """See ``World.written_last``."""
        checkpoints = self.folder.glob("checkpoint-?")
        newest = sorted(checkpoints, key=lambda path: path.stat().st_mtime_ns)[-1:]
        journal = self.folder / "journal"
        database = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm")
        written = [journal / name for name in (*database, "journal.head")]
        return [*newest, *(path for path in written if path.exists())]

    def mend(self) -> str:
        """Repairs the journal, else restores the newest backup."""
        journal = self.folder / "journal"
        try:
            repair(journal)
        except JournalError:
            backups = sorted(self.folder.glob("backup-?"))
            if not backups:
                shutil.rmtree(journal)
                return _BEGUN_ANEW
            restore(journal, backups[-1])
            return _RESTORED
        return "(repaired)"

    def progress(self) -> Any:
        """Checkpoints, and what partners have noted of what left them."""
        paths = [*self.folder.glob("checkpoint-?"), *self.folder.glob("homes/*/audit*")]
        found = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                found.append((str(path), path.stat().st_mtime_ns))
        return sorted(found)

    def is_at_rest(self, aggregator: Process, ended_with: int | None) -> bool:
        """See ``World.is_at_rest``."""
        del ended_with  # it serves until it is killed
        return aggregator.exitcode is None and (self.folder / "finished").exists()

    def wrong_end(self, happened: list[str]) -> str:
        """See ``World.wrong_end``."""
        weights, survivors = light.load(self.folder)
        if len(survivors) != light.NUM_ROUNDS:
            return f"the model is of round {len(survivors)}"
        if weights.tobytes() != light.fault_free(survivors).tobytes():
            return "the model is not the fault-free run's"
        is_whole = not {_RESTORED, _BEGUN_ANEW} & set(happened)
        return self._wrong_journal(survivors, is_whole=is_whole) or self._wrong_paid()

    def _wrong_journal(self, survivors: list[list[str]], *, is_whole: bool) -> str:
        events = list(stored_events(self.folder / "journal"))
        charged = [event for event in events if event.draft.kind == "charged"]
        last = {_round_of(e): e.draft.body["entry"]["clients"] for e in charged}
        for number, clients in last.items():
            if clients != survivors[number]:
                return f"round {number} was charged for {clients}"
        if is_whole and len(last) != light.NUM_ROUNDS:
            return f"only rounds {sorted(last)} were charged"
        return ""

    def _wrong_paid(self) -> str:
        for name in light.COHORT:
            path = self.folder / "homes" / name / "charges"
            paid = path.read_text().split() if path.exists() else []
            sent = _sent(self.folder / "homes" / name / "audit.jsonl")
            if len(set(paid)) != len(paid) or not sent <= set(paid):
                return f"{name} paid {paid} for {sent}"
        return ""


def _round_of(event: Event) -> int:
    return int(event.draft.round_number or 0)


def _sent(audit: Path) -> set[str]:
    if not audit.exists():
        return set()
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    return {
        f"{e['run']}.{e['round']}.{e['attempt']}.{e['kind']}"
        for e in entries
        if e.get("what") == "sending"
    }
