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
        self._partners: dict[str, subprocess.Popen[bytes]] = {}

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

    def kill(self, partner: str) -> None:
        """Ends a partner's program at once, without a word to it: SIGKILL."""
        note(f"$ kill -9 {partner}", style="bold")
        self._partners[partner].kill()
        self._partners[partner].wait()

    def heard(self, partner: str) -> list[str]:
        """The lines that a partner's program has written so far."""
        path = self._log_of(partner)
        return path.read_text("utf-8").splitlines() if path.exists() else []

    @contextlib.contextmanager
    def background(self, partner: str, *arguments: str) -> Iterator[None]:
        """A partner's program beside the others; its words go into a log."""
        command = ("fedtrain-client", *arguments)
        note(f"$ {shlex.join(command)} >> {partner}.log &", style="bold")
        with (
            self._log_of(partner).open("ab") as log,
            self._started(command, log) as process,
        ):
            self._partners[partner] = process
            yield

    def wait_for_partners(self) -> None:
        """Until every partner has heard that the run is finished."""
        for partner, process in self._partners.items():
            try:
                code = process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                code = -1
            if code:
                raise DemoFailedError(
                    f"{partner} did not end well (exit code {code}); see "
                    f"{self._log_of(partner)}."
                )

    def _log_of(self, partner: str) -> Path:
        return self._folder / f"{partner}.log"

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
