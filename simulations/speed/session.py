"""A measured process's side: it waits for commands, runs rounds and answers in JSON.

Commands are lines of standard input: ``rounds N``, ``weights PATH`` and ``end``. The
systems own their loops, so a loop asks before each round and tells after it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulations.speed.workload import Array, Workload, load, save_weights


class Session:
    """Commands on one side, a system's loop on the other."""

    def __init__(self) -> None:
        # Whatever a library prints must not be taken for an answer.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._left = 0
        self._seconds: list[float] = []
        self._started = 0.0

    def ready(self, **facts: Any) -> None:
        """Says that rounds can begin, with versions and settings."""
        self._answer(ready=facts)

    def before_round(self, weights: Callable[[], list[Array]]) -> bool:
        """Waits until a round is wanted; False when there will be no further one."""
        while self._left == 0:
            command, _, argument = sys.stdin.readline().strip().partition(" ")
            if command == "rounds":
                self._left, self._seconds = int(argument), []
            elif command == "weights":
                save_weights(Path(argument), weights())
                self._answer(weights=argument)
            else:
                return False
        self._started = time.perf_counter()
        return True

    def after_round(self, **facts: Any) -> None:
        """Notes how long the round took; answers after the last one, with ``facts``."""
        self._seconds.append(time.perf_counter() - self._started)
        self._left -= 1
        if self._left == 0:
            self._answer(seconds=self._seconds, facts=facts)

    def run(
        self, one_round: Callable[[], None], weights: Callable[[], list[Array]]
    ) -> None:
        """The loop, for a system that leaves it to its user."""
        while self.before_round(weights):
            one_round()
            self.after_round()

    def _answer(self, **answer: Any) -> None:
        print(json.dumps(answer), file=self._answers)


def arguments() -> tuple[Workload, dict[str, Any]]:
    """The workload and the options that the command line names."""
    return load(Path(sys.argv[1])), json.loads(sys.argv[2])
