"""One run of a federation under random faults: what is done to it, and how it ended."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from fedtrain.core.errors import FedtrainError, JournalError
from simulations.reliability.proxy import MODES, Proxy

AGGREGATOR = "aggregator"
_FAULTS = ("kill", "kill", "stop", "network", "network", "clock", "disk", "flip")
_MOST_JUMP_S = 86_400.0
_LAST_WORDS = 4000
_SUPERVISOR_S = 0.2
_Option = TypeVar("_Option")


class Process(Protocol):
    """A started program.

    Attributes:
      pid: Its number.
      exitcode: None while it runs, and until ``World.poll`` has seen its end.
    """

    pid: int
    exitcode: int | None

    def kill(self) -> None:
        """Kills it, unless it has ended, and waits."""


class World(Protocol):
    """The programs of one run, and what tells whether it ended well.

    Attributes:
      folder: Of the run; holds a ``logs`` folder.
      proxy: What partners reach the aggregator through.
      partners: Their names.
      pace: How much slower than the light programs these are.
    """

    folder: Path
    proxy: Proxy
    partners: tuple[str, ...]
    pace: float

    def start(self, name: str, faults: dict[str, float]) -> Process:
        """Starts the aggregator or a partner; what it prints goes to its log."""

    def poll(self) -> None:
        """Notes which processes have ended."""

    def written_last(self) -> list[Path]:
        """Files of the aggregator that a bit may flip in."""

    def mend(self) -> str:
        """Does what the aggregator's journal told the operator to do; says what."""

    def progress(self) -> Any:
        """Something that is another value once the run has come further."""

    def is_at_rest(self, aggregator: Process, ended_with: int | None) -> bool:
        """Whether the aggregator, too, has come to the end since it was last harmed.

        Args:
          aggregator: As it is now.
          ended_with: How it has ended by itself since then; None if it has not.
        """

    def wrong_end(self, happened: list[str]) -> str:
        """What is wrong with how it ended; empty if nothing is."""


class Patience(NamedTuple):
    """How long a run is waited for.

    Attributes:
      standstill_s: Without any progress for so long, it hangs.
      most_s: With progress for so long, it is slow, which a busy machine may be.
    """

    standstill_s: float = 480.0
    most_s: float = 1200.0


class Outcome(NamedTuple):
    """How one run ended.

    Attributes:
      seed: Which run.
      faults: What happened to it, in order.
      seconds: How long it took.
      problem: What is wrong with how it ended; empty if nothing is.
      is_slow: Whether it was given up, though it was going on.
      logs: The last words of each process, if there is a problem.
    """

    seed: int
    faults: tuple[str, ...]
    seconds: float
    problem: str
    is_slow: bool
    logs: str

    def __repr__(self) -> str:
        """For a test that fails: everything, on lines that can be read."""
        return f"run {self.seed}: {self.problem} {self.faults}\n{self.logs}"


class Trial:
    """One run.

    Args:
      world: Its programs.
      seed: Of what is done to it.
      patience: How long it is waited for.
      is_late: Whether faults begin with the first progress, not with the start.
    """

    def __init__(
        self, world: World, seed: int, patience: Patience, *, is_late: bool = False
    ) -> None:
        self._world = world
        self._chance = np.random.default_rng(seed)
        self._seed = seed
        self._patience = patience
        self._happened: list[str] = []
        self._processes: dict[str, Process] = {}
        self._is_slow = False
        self._is_late = is_late
        self._ended_with: int | None = None

    def outcome(self, num_faults: int) -> Outcome:
        """Starts all, does its faults, and waits for the end."""
        begun = time.monotonic()
        try:
            for name in (AGGREGATOR, *self._world.partners):
                self._start(name)
            while self._is_late and not self._world.progress():
                self._wait(0.1)
            for _ in range(num_faults):
                self._wait(self._chance.uniform(0.0, 0.8 * self._world.pace))
                fault = self._one_of(_FAULTS)
                self._happened.append(getattr(self, f"_{fault}")())
            problem = self._unfinished(begun)
            if not problem and not self._is_slow:
                problem = self._world.wrong_end(self._happened)
        except FedtrainError as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            self._world.proxy.mode = "pass"
            for process in self._processes.values():
                process.kill()
        return Outcome(
            self._seed,
            tuple(self._happened),
            time.monotonic() - begun,
            problem,
            self._is_slow,
            _last_words(self._world.folder) if problem or self._is_slow else "",
        )

    def _kill(self) -> str:
        name = self._anybody()
        self._processes[name].kill()
        return f"kill {name}"

    def _stop(self) -> str:
        name = self._anybody()
        process = self._processes[name]
        self._world.poll()
        if process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(self._chance.uniform(0.1, 1.5))
                os.kill(process.pid, signal.SIGCONT)
        return f"stop {name}"

    def _network(self) -> str:
        mode = self._one_of(MODES)
        self._world.proxy.mode = mode
        self._wait(self._chance.uniform(0.1, 1.0))
        self._world.proxy.mode = "pass"
        return f"network {mode}"

    def _clock(self) -> str:
        jump_s = self._chance.uniform(-_MOST_JUMP_S, _MOST_JUMP_S)
        return self._restarted_with("clock", jump_s=jump_s)

    def _disk(self) -> str:
        return self._restarted_with("disk")

    def _restarted_with(self, fault: str, **facts: float) -> str:
        name = self._anybody()
        self._processes[name].kill()
        after_s = self._chance.uniform(0.1, 0.8) * self._world.pace
        self._start(name, {fault: after_s, **facts})
        return f"{fault} {name}"

    def _flip(self) -> str:
        """Kills the aggregator and damages what it wrote last."""
        self._processes[AGGREGATOR].kill()
        self._ended_with = None
        paths = [path for path in self._world.written_last() if path.stat().st_size]
        if not paths:
            return "flip nothing"
        path = self._one_of(sorted(paths))
        content = bytearray(path.read_bytes())
        at, bit = self._chance.integers(len(content)), self._chance.integers(8)
        content[at] ^= 1 << int(bit)
        path.write_bytes(content)
        return f"flip {path.name}"

    def _one_of(self, options: Sequence[_Option]) -> _Option:
        return options[self._chance.integers(len(options))]

    def _anybody(self) -> str:
        return self._one_of((AGGREGATOR, *self._world.partners))

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._restart_the_dead()
            time.sleep(0.02)

    def _unfinished(self, begun: float) -> str:
        """Waits for all partners; what is wrong if they do not end."""
        known, since = self._progress(), time.monotonic()
        while not self._is_done():
            self._wait(0.2)
            now, progress = time.monotonic(), self._progress()
            if progress != known:
                known, since = progress, now
            if now > since + self._patience.standstill_s:
                return f"nothing went on for {self._patience.standstill_s:g} s"
            if now > begun + self._patience.most_s:
                self._is_slow = True
                return ""
        return ""

    def _is_done(self) -> bool:
        if any(self._processes[name].exitcode != 0 for name in self._world.partners):
            return False
        aggregator = self._processes[AGGREGATOR]
        return self._world.is_at_rest(aggregator, self._ended_with)

    def _progress(self) -> Any:
        ended = [p for p in self._world.partners if self._processes[p].exitcode == 0]
        return ended, self._world.progress()

    def _restart_the_dead(self) -> None:
        self._world.poll()
        for name, process in list(self._processes.items()):
            # An aggregator that is done has still to tell partners who were away.
            is_done = process.exitcode == 0 and name != AGGREGATOR
            if process.exitcode is None or is_done:
                continue
            if name == AGGREGATOR:
                self._ended_with = process.exitcode
            if process.exitcode != -signal.SIGKILL:
                self._happened.append(f"({name} ended: {process.exitcode})")
                time.sleep(_SUPERVISOR_S)
            if name == AGGREGATOR and process.exitcode == JournalError.exit_code:
                self._happened.append(self._world.mend())
            self._start(name)

    def _start(self, name: str, faults: dict[str, float] | None = None) -> None:
        with (self._world.folder / "logs" / name).open("a") as log:
            log.write(f"{time.monotonic():.2f} -- started, faults: {faults or {}}\n")
        self._processes[name] = self._world.start(name, faults or {})


def _last_words(folder: Path) -> str:
    found = [
        f"--- {path.name}\n{path.read_text(errors='replace')[-_LAST_WORDS:]}"
        for path in sorted((folder / "logs").iterdir())
    ]
    return "\n".join(found)
