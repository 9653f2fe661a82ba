"""Measures the systems on one workload: the same update first, then time, in turns."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simulations.speed.process import MeasuredProcess, ProcessError
from simulations.speed.systems import BOUND, System
from simulations.speed.workload import Array, Workload

TOLERANCE = 1e-4
_WARM_UP_ROUNDS, _WARM_UP_SECONDS = 3, 20.0
_STRETCH_SECONDS, _MOST_ROUNDS = 1.5, 100

Start = Callable[[System, dict[str, Any]], MeasuredProcess]


@dataclass
class Measurement:
    """What was measured of one system on one workload.

    Attributes:
      stretches: Seconds of each round, by repetition.
      cpu_seconds: Processor time of a round on average, by repetition: what other work
        on the machine disturbs least.
      settings: The fastest of those tried, and what the system says of itself.
      versions: Of its packages.
      difference: Largest difference of a weight to the bound's after one round.
      seconds_to_start: From the start of the process to the end of its first round,
        less a usual round.
      peak_bytes: Largest resident sets of its processes, added up.
      failure: Why there are no figures, if there are none.
    """

    stretches: list[list[float]] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    difference: float | None = None
    seconds_to_start: float = 0.0
    peak_bytes: int = 0
    failure: str = ""

    def seconds(self) -> float:
        """The median round."""
        return float(np.median(np.concatenate(self.stretches)))


@dataclass
class _Candidate:
    process: MeasuredProcess
    first_round: float
    weights: list[Array]
    usual: float


def measured(
    workload: Workload,
    chosen: Sequence[System],
    start: Start,
    *,
    num_stretches: int,
    lock: Path | None = None,
) -> dict[str, Measurement]:
    """Every system's figures by name.

    Args:
      workload: What is trained.
      chosen: The systems, the bound among them: its update is the reference.
      start: Starts a system's process with some settings.
      num_stretches: How often each system has its turn.
      lock: A file that is locked while something is timed, so that several
        measurements on one machine do not disturb each other.
    """
    running: dict[str, _Candidate] = {}
    results = {system.name: Measurement() for system in chosen}
    try:
        for system in chosen:
            _begin(system, start, running, results, lock)
        _check_updates(workload, chosen, running, results)
        _take_turns(running, results, num_stretches, lock)
        for name, candidate in running.items():
            results[name].peak_bytes = candidate.process.peak_bytes()
    finally:
        for candidate in running.values():
            candidate.process.end()
    return results


def ratios(results: Mapping[str, Measurement], name: str, reference: str) -> Array:
    """How many times as long ``name`` takes as ``reference``, by repetition."""
    pairs = zip(results[name].stretches, results[reference].stretches, strict=True)
    return np.array([np.median(own) / np.median(other) for own, other in pairs])


def _begin(
    system: System,
    start: Start,
    running: dict[str, _Candidate],
    results: dict[str, Measurement],
    lock: Path | None,
) -> None:
    best: _Candidate | None = None
    result = results[system.name]
    for settings in system.settings:
        try:
            candidate = _warmed_up(start(system, settings), lock)
        except ProcessError as error:
            result.failure = str(error)
            continue
        if best is None or candidate.usual < best.usual:
            best, candidate = candidate, best
        if candidate is not None:
            candidate.process.end()
    if best is None:
        return
    running[system.name] = best
    result.failure = ""
    result.settings = best.process.facts.get("settings", {})
    result.versions = best.process.facts["versions"]
    first = max(best.first_round - best.usual, 0.0)
    result.seconds_to_start = best.process.seconds_to_start + first


def _warmed_up(process: MeasuredProcess, lock: Path | None) -> _Candidate:
    (first,) = process.rounds(1)
    weights = process.weights()
    with locked(lock):
        number = 1 if first > _WARM_UP_SECONDS else _WARM_UP_ROUNDS
        usual = float(np.median(process.rounds(number)))
    return _Candidate(process, first, weights, usual)


def _check_updates(
    workload: Workload,
    chosen: Sequence[System],
    running: dict[str, _Candidate],
    results: dict[str, Measurement],
) -> None:
    """Ends what does not compute the bound's update."""
    reference = running[BOUND.name].weights
    moved = largest_difference(reference, workload.weights)
    for system in chosen:
        if system.name not in running:
            continue
        difference = largest_difference(running[system.name].weights, reference)
        results[system.name].difference = difference
        # A tolerance is worth nothing beside an update that is as small.
        if not system.changes_update and difference > min(TOLERANCE, 0.05 * moved):
            running.pop(system.name).process.end()
            results[system.name].failure = f"another update: {difference:.1e} away"


def _take_turns(
    running: Mapping[str, _Candidate],
    results: dict[str, Measurement],
    num_stretches: int,
    lock: Path | None,
) -> None:
    for _ in range(num_stretches):
        for name, candidate in running.items():
            wanted = round(_STRETCH_SECONDS / max(candidate.usual, 1e-6))
            number = min(max(wanted, 1), _MOST_ROUNDS)
            with locked(lock):
                before = candidate.process.cpu_seconds()
                results[name].stretches.append(candidate.process.rounds(number))
                used = candidate.process.cpu_seconds() - before
            results[name].cpu_seconds.append(used / number)


def largest_difference(left: Sequence[Array], right: Sequence[Array]) -> float:
    """The largest difference of any weight; infinite where one is not a number."""
    largest = max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True))
    return largest if np.isfinite(largest) else float("inf")


@contextlib.contextmanager
def locked(path: Path | None) -> Iterator[None]:
    """Holds an exclusive lock on a file while the block runs."""
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
