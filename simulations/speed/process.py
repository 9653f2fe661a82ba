"""A measured process from outside: started, asked, weighed, ended with its children."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from simulations.speed.workload import Array, load_weights

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS_TO_DIE = 5.0
_QUIET = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "GRPC_VERBOSITY": "ERROR",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class ProcessError(Exception):
    """A measured process ended or answered too late; its last words are quoted."""


class MeasuredProcess:
    """One system on one workload, waiting for commands.

    Args:
      python: The interpreter of the system's environment.
      module: What it runs, with a ``main``.
      folder: The workload's folder.
      options: Settings for the system.
    """

    def __init__(
        self, python: Path, module: str, folder: Path, options: dict[str, Any]
    ) -> None:
        self._cache = tempfile.TemporaryDirectory()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - until end()
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [str(python), "-m", module, str(folder), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=_ROOT,
            # fedtrain is to find its own way, not to remember another run's.
            env={
                **os.environ,
                **_QUIET,
                "PYTHONPATH": str(_ROOT),
                "FEDTRAIN_CACHE_DIR": self._cache.name,
            },
        )
        self.facts = self._answer()["ready"]
        self.seconds_to_start = time.perf_counter() - started

    def rounds(self, number: int) -> list[float]:
        """Seconds of each of ``number`` further rounds."""
        answer = self._ask(f"rounds {number}")
        self.facts["settings"] |= answer["facts"]
        return list(answer["seconds"])

    def weights(self) -> list[Array]:
        """The global weights now."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.npz"
            self._ask(f"weights {path}")
            return load_weights(path)

    def peak_bytes(self) -> int:
        """The largest resident sets of the process and its children, added up."""
        return sum(_peak_bytes(pid) for pid in self._all())

    def cpu_seconds(self) -> float:
        """Processor time used so far by the process and its children."""
        ticks = [sum(map(int, _stat(pid)[11:13])) for pid in self._all()]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends the process and every child that it leaves behind."""
        started = {pid: _started(pid) for pid in self._all()}
        self._say("end")
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _kill(started)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            # A process that is gone has not taken the last command.
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        self._cache.cleanup()

    def _ask(self, command: str) -> dict[str, Any]:
        self._say(command)
        return self._answer()

    def _say(self, command: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(command + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip()
            self.end()
            raise ProcessError(words[-2000:] or "It ended without a word.")
        return dict(json.loads(line))

    def _all(self) -> list[int]:
        return family(self._process.pid)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {
        int(entry.name): _parent(int(entry.name))
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
    }
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _kill(started: dict[int, str | None]) -> None:
    """Ends those that still are who they were, and waits until they are gone."""
    ends = time.monotonic() + _SECONDS_TO_DIE
    for pid, since in started.items():
        with contextlib.suppress(ProcessLookupError):
            if since is not None and _started(pid) == since:
                os.kill(pid, signal.SIGKILL)
        while since and _started(pid) == since and time.monotonic() < ends:
            time.sleep(0.01)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _started(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line.split() for line in status.splitlines())
    return sum(1024 * int(words[1]) for words in lines if words[:1] == ["VmHWM:"])
