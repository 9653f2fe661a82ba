"""Runs light federations under random faults, and checks how each of them ends.

python -m simulations.reliability.run --runs 500 --seed 1
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from aggregator.authority import Authority, Terms, init
from aggregator.events import Event
from aggregator.journal import stored_events
from aggregator.journal_repair import repair, restore
from clients.policy import policy_for, write_policy
from fedtrain.core.errors import FedtrainError, JournalError
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys
from simulations.reliability import light
from simulations.reliability.proxy import MODES, Proxy

_FAULTS = ("kill", "kill", "stop", "network", "network", "clock", "disk", "flip")
_DEADLINE_S = 120.0
_context = multiprocessing.get_context("forkserver")


class Outcome(NamedTuple):
    """How one run ended.

    Attributes:
      seed: Which run.
      faults: What happened to it, in order.
      seconds: How long it took.
      problem: What is wrong with how it ended; empty if nothing is.
    """

    seed: int
    faults: tuple[str, ...]
    seconds: float
    problem: str


class Federation:
    """Keys and certificates, made once; every run gets a copy of the homes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.proxy = Proxy(self.port, random.Random(0))
        authority = init(folder / "authority", name="light", hosts=["localhost"])
        plan = light.plan()
        terms = Terms(plan, f"127.0.0.1:{self.proxy.port}", "localhost")
        for name in light.COHORT:
            home = folder / "homes" / name
            request = EnrolmentRequest.of(name, new_keys(home))
            invitation = Authority(authority.server_path.parent).admit(request, terms)
            (folder / f"{name}.invitation").write_bytes(invitation.to_bytes())
            policy = policy_for(plan, max_epsilon=float("inf"))
            write_policy(home / "policy.toml", policy.approving(plan))


class Trial:
    """One run: its processes, and what is done to them."""

    def __init__(self, federation: Federation, folder: Path, seed: int) -> None:
        self._federation = federation
        self._folder = folder
        self._chance = random.Random(seed)
        self._seed = seed
        self._happened: list[str] = []
        self._processes: dict[str, Any] = {}
        shutil.copytree(federation.folder / "homes", folder / "homes")

    def outcome(self, num_faults: int) -> Outcome:
        """Starts all, does its faults, and waits for the end."""
        begun = time.monotonic()
        try:
            for name in ("aggregator", *light.COHORT):
                self._start(name)
            self._disturb(num_faults)
            problem = self._finish(begun + _DEADLINE_S) or self._wrong_end()
        except FedtrainError as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            self._federation.proxy.mode = "pass"
            for process in self._processes.values():
                process.kill()
                process.join()
        seconds = time.monotonic() - begun
        return Outcome(self._seed, tuple(self._happened), seconds, problem)

    def _disturb(self, num_faults: int) -> None:
        for _ in range(num_faults):
            self._wait(self._chance.uniform(0.0, 0.8))
            fault = self._chance.choice(_FAULTS)
            self._happened.append(getattr(self, f"_{fault}")())

    def _kill(self) -> str:
        name = self._chance.choice(("aggregator", *light.COHORT))
        self._processes[name].kill()
        self._processes[name].join()
        return f"kill {name}"

    def _stop(self) -> str:
        name = self._chance.choice(("aggregator", *light.COHORT))
        pid = self._processes[name].pid
        if self._processes[name].is_alive():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._chance.uniform(0.1, 1.5))
            os.kill(pid, signal.SIGCONT)
        return f"stop {name}"

    def _network(self) -> str:
        mode = self._chance.choice(MODES)
        self._federation.proxy.mode = mode
        self._wait(self._chance.uniform(0.1, 1.0))
        self._federation.proxy.mode = "pass"
        return f"network {mode}"

    def _clock(self) -> str:
        return self._restarted_with("clock")

    def _disk(self) -> str:
        return self._restarted_with("disk")

    def _restarted_with(self, fault: str) -> str:
        name = self._chance.choice(("aggregator", *light.COHORT))
        self._processes[name].kill()
        self._processes[name].join()
        self._start(name, {fault: self._chance.uniform(0.1, 0.8)})
        return f"{fault} {name}"

    def _flip(self) -> str:
        """Kills the aggregator and damages what it wrote last."""
        self._processes["aggregator"].kill()
        self._processes["aggregator"].join()
        patterns = ("checkpoint-?", "journal/journal.sqlite*", "journal/journal.head")
        paths = [path for one in patterns for path in self._folder.glob(one)]
        paths = [path for path in paths if path.stat().st_size]
        if not paths:
            return "flip nothing"
        path = self._chance.choice(paths)
        if path.name.startswith("checkpoint"):
            path = max(
                self._folder.glob("checkpoint-?"), key=lambda p: p.stat().st_mtime
            )
        content = bytearray(path.read_bytes())
        content[self._chance.randrange(len(content))] ^= 1 << self._chance.randrange(8)
        path.write_bytes(content)
        return f"flip {path.name}"

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._restart_the_dead()
            time.sleep(0.02)

    def _finish(self, give_up: float) -> str:
        clients = [self._processes[name] for name in light.COHORT]
        while any(process.exitcode != 0 for process in clients):
            self._restart_the_dead()
            clients = [self._processes[name] for name in light.COHORT]
            if time.monotonic() > give_up:
                return f"not finished within {_DEADLINE_S:g} s"
            time.sleep(0.02)
        return ""

    def _restart_the_dead(self) -> None:
        for name, process in list(self._processes.items()):
            if process.exitcode in (None, 0):
                continue
            if name == "aggregator" and process.exitcode == JournalError.exit_code:
                self._mend()
            self._start(name)

    def _mend(self) -> None:
        """What the operator is told to do: repair, else the newest backup."""
        journal = self._folder / "journal"
        try:
            repair(journal)
            self._happened.append("(repaired)")
        except JournalError:
            backups = sorted(self._folder.glob("backup-?"))
            if not backups:
                shutil.rmtree(journal)
                self._happened.append("(journal begun anew)")
                return
            restore(journal, backups[-1])
            self._happened.append("(restored)")

    def _start(self, name: str, faults: dict[str, float] | None = None) -> None:
        home = self._folder / "homes" / name
        authority = self._federation.folder / "authority"
        invitation = self._federation.folder / f"{name}.invitation"
        if name == "aggregator":
            call = (light.aggregate, (self._folder, authority, self._federation.port))
        else:
            call = (light.take_part, (home, invitation))
        process = _context.Process(target=call[0], args=(*call[1], faults or {}))
        process.start()
        self._processes[name] = process

    def _wrong_end(self) -> str:
        weights, survivors = light.load(self._folder)
        if len(survivors) != light.NUM_ROUNDS:
            return f"the model is of round {len(survivors)}"
        if weights.tobytes() != light.fault_free(survivors).tobytes():
            return "the model is not the fault-free run's"
        return self._wrong_journal(survivors) or self._wrong_charges()

    def _wrong_journal(self, survivors: list[list[str]]) -> str:
        events = list(stored_events(self._folder / "journal"))
        charged = [event for event in events if event.draft.kind == "charged"]
        last = {_round_of(e): e.draft.body["entry"]["clients"] for e in charged}
        for number, clients in last.items():
            if clients != survivors[number]:
                return f"round {number} was charged for {clients}"
        is_whole = not {"(restored)", "(journal begun anew)"} & set(self._happened)
        if is_whole and len(last) != light.NUM_ROUNDS:
            return f"only rounds {sorted(last)} were charged"
        return ""

    def _wrong_charges(self) -> str:
        for name in light.COHORT:
            path = self._folder / "homes" / name / "charges"
            paid = path.read_text().split() if path.exists() else []
            sent = _sent(self._folder / "homes" / name / "audit.jsonl")
            if len(set(paid)) != len(paid) or not sent <= set(paid):
                return f"{name} paid {paid} for {sent}"
        return ""


def main() -> None:
    """Prints a line for each run, and what all of them came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--faults", type=int, default=8, help="in each run")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.runs)
    outcomes = trials(seeds, num_faults=options.faults, show=True)
    print(json.dumps(summary(outcomes), indent=2))
    if any(outcome.problem for outcome in outcomes):
        raise SystemExit(1)


def trials(seeds: Any, *, num_faults: int, show: bool = False) -> list[Outcome]:
    """One run for each seed, one after the other."""
    _context.set_forkserver_preload(["simulations.reliability.light"])
    outcomes = []
    with tempfile.TemporaryDirectory() as base:
        federation = Federation(Path(base))
        for seed in seeds:
            folder = Path(base) / f"run-{seed}"
            folder.mkdir()
            outcome = Trial(federation, folder, seed).outcome(num_faults)
            outcomes.append(outcome)
            if show:
                print(_line(outcome), flush=True)
            if not outcome.problem:
                shutil.rmtree(folder)
        federation.proxy.close()
    return outcomes


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Counts of faults and of problems, and how long the runs took."""
    seconds = sorted(outcome.seconds for outcome in outcomes)
    faults = Counter(fault for outcome in outcomes for fault in outcome.faults)
    return {
        "runs": len(outcomes),
        "complete": sum(not outcome.problem for outcome in outcomes),
        "median_s": round(seconds[len(seconds) // 2], 1),
        "longest_s": round(seconds[-1], 1),
        "faults": dict(sorted(faults.items())),
        "problems": [(o.seed, o.problem) for o in outcomes if o.problem],
    }


def _line(outcome: Outcome) -> str:
    ended = outcome.problem or "as without faults"
    faults = ", ".join(outcome.faults)
    return f"{outcome.seed:4d} {outcome.seconds:6.1f} s  {ended}  [{faults}]"


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


if __name__ == "__main__":
    main()
