"""Watches a running system from outside: time, bytes, memory and processor."""

import itertools
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from fedtrain.core.errors import FedtrainError
from simulations.service.workload import NUM_ROUNDS, PORT
from simulations.speed.process import family

_EVERY_S = 0.05
_SELDOM = 10
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """What was seen at one moment.

    Attributes:
      at: Of the clock that all processes share.
      resident_bytes: Of the aggregator's processes.
      cpu_seconds: Theirs, so far.
      all_cpu_seconds: Of all processes here, so far.
      loopback_bytes: Packets of this network, so far.
      wire_bytes: Content of the aggregator's connections both ways, so far.
    """

    at: float
    resident_bytes: int
    cpu_seconds: float
    all_cpu_seconds: float
    loopback_bytes: int
    wire_bytes: int


def watched(server: "subprocess.Popen[Any]", folder: Path) -> dict[str, Any]:
    """Samples until the system says that it is done, and gives the figures.

    Raises:
      FedtrainError: If the aggregator ends before; its log says why.
    """
    samples: list[Sample] = []
    wire, used = _Wire(), _Processors()
    members: list[int] = []
    while not any(mark["what"] == "done" for mark in _marks(folder)):
        if server.poll() is not None:
            raise FedtrainError("The aggregator ended.")
        if len(samples) % _SELDOM == 0:
            members = family(server.pid)
            wire.look()
        samples.append(_sample(members, wire.total(), used.seconds()))
        time.sleep(_EVERY_S)
    wire.look()
    samples.append(_sample(family(server.pid), wire.total(), used.seconds()))
    return _figures(_marks(folder), samples)


class _Wire:
    """Adds up the connections of the aggregator's port, those that are gone too."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def look(self) -> None:
        command = ["ss", "-tinHO", "state", "connected", f"sport = :{PORT}"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True)
        for line in lines.stdout.splitlines():
            found = re.findall(r"bytes_(?:sent|received):(\d+)", line)
            peer = line.split()[4]
            self._seen[peer] = max(sum(map(int, found)), self._seen.get(peer, 0))

    def total(self) -> int:
        return sum(self._seen.values())


class _Processors:
    """Adds up what all processes but this one have used, those that are gone too."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def seconds(self) -> float:
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                seconds = _cpu_seconds(int(entry), of_children=False)
                self._seen[int(entry)] = max(seconds, self._seen.get(int(entry), 0.0))
        return sum(self._seen.values())


def _sample(members: list[int], wire_bytes: int, all_cpu_seconds: float) -> Sample:
    return Sample(
        at=time.monotonic(),
        resident_bytes=sum(map(_resident_bytes, members)),
        cpu_seconds=sum(map(_cpu_seconds, members)),
        all_cpu_seconds=all_cpu_seconds,
        loopback_bytes=_loopback_bytes(),
        wire_bytes=wire_bytes,
    )


def _figures(marks: list[dict[str, Any]], samples: list[Sample]) -> dict[str, Any]:
    at = {mark["what"]: mark["at"] for mark in marks}
    ends = [mark["at"] for mark in marks if mark["what"] == "round"]
    if len(ends) != NUM_ROUNDS:
        raise FedtrainError(f"{len(ends)} rounds were marked, not {NUM_ROUNDS}.")
    first, last = _nearest(samples, ends[0]), samples[-1]
    idle = max(s.resident_bytes for s in samples if at["idle"] < s.at < at["begin"])
    measured = NUM_ROUNDS - 1
    return {
        "seconds": [end - begin for begin, end in itertools.pairwise(ends)],
        "idle_bytes": idle,
        "peak_bytes": max(s.resident_bytes for s in samples if s.at > at["begin"]),
        "cpu_seconds": (last.cpu_seconds - first.cpu_seconds) / measured,
        "all_cpu_seconds": (last.all_cpu_seconds - first.all_cpu_seconds) / measured,
        "loopback_bytes": (last.loopback_bytes - first.loopback_bytes) / measured,
        # Seen too seldom to be told by round; the first is as large as the others.
        "wire_bytes": last.wire_bytes / NUM_ROUNDS,
    }


def _nearest(samples: list[Sample], at: float) -> Sample:
    return min(samples, key=lambda sample: abs(sample.at - at))


def _marks(folder: Path) -> list[dict[str, Any]]:
    path = folder / "marks"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _resident_bytes(pid: int) -> int:
    fields = _content(pid, "statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _cpu_seconds(pid: int, *, of_children: bool = True) -> float:
    """Its own, and that of its children that have ended."""
    fields = _content(pid, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if of_children else 13])) / _TICKS


def _content(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _loopback_bytes() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(line for line in lines if "lo:" in line).split()[1])
