"""A process that has imported the programs, and forks one whenever it is asked.

A program of its own, so that nothing of the harness (threads, pytest, its modules) is
in what it forks, and a fork costs milliseconds. When the harness ends, however it ends,
the nursery reads the end of its input and kills all that it started.

python -m simulations.reliability.nursery MODULE
"""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from fedtrain.cli.worker_process import end_with

_ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A process of the nursery.

    Attributes:
      pid: Its number.
      exitcode: As ``subprocess`` has it; None until ``Nursery.poll`` has seen its end.
    """

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self.exitcode: int | None = None
        self._nursery = nursery

    def kill(self) -> None:
        """Kills it, unless it has ended, and waits."""
        # Nobody takes its number before it is waited for.
        if self.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Returns its exit code once it has ended."""
        if self.exitcode is None:
            self._nursery.wait(self)
        return self.exitcode or 0


class Nursery:
    """The harness's end of it. Close it at the end.

    Args:
      module: Where the programs are functions; imported once.
    """

    def __init__(self, module: str) -> None:
        self._children: dict[int, Child] = {}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "simulations.reliability.nursery", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )

    def start(self, program: str, arguments: list[Any], log: Path) -> Child:
        """Runs a function of the module; what it prints is added to ``log``.

        Args:
          program: The function's name.
          arguments: Plain values and paths; paths arrive as text.
          log: A file.
        """
        request = {"start": program, "arguments": arguments, "log": log}
        pid = self._ask(request)["pid"]
        self._children[pid] = Child(self, pid)
        return self._children[pid]

    def poll(self) -> None:
        """Notes which children have ended."""
        self._note(self._ask({"poll": True})["ended"])

    def wait(self, child: Child) -> None:
        """Returns once ``child`` has ended."""
        self._note(self._ask({"wait": child.pid})["ended"])

    def close(self) -> None:
        """Kills all children, and ends."""
        if self._server.stdin is not None and self._server.stdout is not None:
            self._server.stdin.close()
            self._server.wait()
            self._server.stdout.close()

    def _note(self, ended: list[list[int]]) -> None:
        for pid, code in ended:
            self._children.pop(pid).exitcode = code

    def _ask(self, request: dict[str, Any]) -> Any:
        if self._server.stdin is None or self._server.stdout is None:
            raise RuntimeError("The nursery was closed.")
        self._server.stdin.write(json.dumps(request, default=str) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"The nursery ended: exit code {self._server.wait()}.")
        return json.loads(line)


def main() -> None:
    """Answers each line of the input by one, until there is no more."""
    # Ctrl-C at a terminal reaches all; only the end of the input is what ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    programs = importlib.import_module(sys.argv[1])
    living: set[int] = set()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), programs, living)), flush=True)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answer(request: dict[str, Any], programs: Any, living: set[int]) -> dict[str, Any]:
    if "start" in request:
        nursery = os.getpid()
        pid = os.fork()
        if not pid:
            _be(request, programs, nursery)
        living.add(pid)
        return {"pid": pid}
    if "wait" in request:
        return {"ended": _ended(living, {request["wait"]}, 0)}
    return {"ended": _ended(living, living, os.WNOHANG)}


def _ended(living: set[int], asked: set[int], how: int) -> list[list[int]]:
    found = [os.waitpid(pid, how) for pid in asked]
    codes = [[pid, os.waitstatus_to_exitcode(status)] for pid, status in found if pid]
    living.difference_update(pid for pid, _ in codes)
    return codes


def _be(request: dict[str, Any], programs: Any, nursery: int) -> None:
    """The child: runs the function, and never returns."""
    code = 1
    try:
        end_with(nursery)
        _print_to(request["log"])
        getattr(programs, request["start"])(*request["arguments"])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - the harness reads it in the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _print_to(log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (handle, 1), (handle, 2)):
        os.dup2(source, target)
    sys.stdout = sys.stderr = io.TextIOWrapper(_Log(), "utf-8", write_through=True)


class _Log(io.RawIOBase):
    """Standard error that never fails: a full disk is not that of the log."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            os.write(2, content)
        return len(content)


if __name__ == "__main__":
    main()
