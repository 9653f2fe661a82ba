"""The commands of a demonstration, run as people would run them."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedtrain.cli.output import note
from fedtrain.core.errors import FedtrainError

_PROGRAMS = {"fedtrain-aggregator": "aggregator.cli", "fedtrain-client": "clients.cli"}
_CHILD = (
    "from fedtrain.cli.worker_process import end_with; end_with({parent}); "
    "from {module} import main; main()"
)
_GRACE_S = 20.0


class DemoFailedError(FedtrainError):
    """A step of the demo did not end as it should."""


class Shell:
    """Runs the two programs as an operator and its partners would.

    Args:
      folder: Where; ledgers and homes are in it, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Ledgers and homes of the demo are the demo's own.
        self._environment = {**os.environ, "FEDTRAIN_STATE_DIR": str(folder / "state")}
        self._beside: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *command: str) -> None:
        """One command, shown and waited for."""
        note(f"$ {shlex.join(command)}", style="bold")
        with self._started(command, None) as process:
            code = process.wait()
        if code:
            raise DemoFailedError(
                f"`{shlex.join(command)}` ended with exit code {code}. What the "
                f"partners printed is in {self._folder}/*.log."
            )
        note("")

    def kill(self, name: str) -> None:
        """Ends a program in the background at once, without a word to it: SIGKILL."""
        note(f"$ kill -9 {name}", style="bold")
        process = self._beside.pop(name)
        process.kill()
        process.wait()

    def heard(self, name: str) -> list[str]:
        """The lines that a program in the background has written so far."""
        path = self._log_of(name)
        return path.read_text("utf-8").splitlines() if path.exists() else []

    @contextlib.contextmanager
    def background(self, name: str, *command: str) -> Iterator[None]:
        """A program beside the others; its words go into a log."""
        note(f"$ {shlex.join(command)} >> {name}.log &", style="bold")
        with (
            self._log_of(name).open("ab") as log,
            self._started(command, log) as process,
        ):
            self._beside[name] = process
            yield

    def wait(self, *, may_be_late: str = "") -> None:
        """Until every program in the background has ended well.

        Args:
          may_be_late: One that may have come when there was nothing left to do.

        Raises:
          DemoFailedError: If one has not, soon.
        """
        for name, process in self._beside.items():
            try:
                code = process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                code = -1
            if code == -1 and name == may_be_late:
                note(f"{name} was back too late to hear that the run has ended.\n")
            elif code:
                raise DemoFailedError(
                    f"{name} did not end well (exit code {code}); see "
                    f"{self._log_of(name)}."
                )

    def _log_of(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    @contextlib.contextmanager
    def _started(
        self, command: Sequence[str], log: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        child = _CHILD.format(parent=os.getpid(), module=_PROGRAMS[command[0]])
        process = subprocess.Popen(
            [sys.executable, "-c", child, *command[1:]],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
