"""One vector, ten clients, and a training that costs next to nothing.

Needs numpy alone: every system's clients import it, in their own environments.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_CLIENTS = 10
NUM_ROUNDS = 6  # the first one warms up
PORT = 9443  # of the aggregator; each system has a network of its own
TOLERANCE = 1e-4
CLIENTS = tuple(f"client-{position}" for position in range(NUM_CLIENTS))
Weights = npt.NDArray[np.float32]


def start(num_weights: int) -> Weights:
    """The first weights."""
    return np.zeros(num_weights, np.float32)


class Training:
    """What one client does in a round: two passes of numpy.

    Args:
      position: Of the client in the cohort.
      num_weights: Length of the vector.
    """

    def __init__(self, position: int, num_weights: int) -> None:
        # Tells clients and places apart: no chunk can be lost or change its place.
        ramp = np.arange(num_weights, dtype=np.float32) / np.float32(num_weights)
        self._pull = ramp * np.float32(0.01 * (position + 1))

    def __call__(self, weights: Weights) -> Weights:
        """The client's weights after it has trained."""
        trained = weights * np.float32(0.9)
        trained += self._pull
        return trained


def expected(num_weights: int) -> Weights:
    """The weights after all rounds, computed here."""
    weights = start(num_weights).astype(np.float64)
    ramp = np.arange(num_weights, dtype=np.float32) / np.float32(num_weights)
    pull = 0.01 * (1 + NUM_CLIENTS) / 2 * ramp
    for _ in range(NUM_ROUNDS):
        weights = 0.9 * weights + pull
    return weights.astype(np.float32)


class Marks:
    """When what happened, written by the system for the watcher: a line of JSON each.

    Args:
      folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def idle(self) -> None:
        """All is loaded and no model is there yet; waits to be weighed."""
        self._say("idle")
        time.sleep(1.0)
        self._say("begin")

    def round_done(self) -> None:
        """The next weights are there."""
        self._say("round")

    def done(self, weights: Weights) -> None:
        """The last round is over; ``weights`` are to be compared.

        The watcher ends all, so nothing may close its connections before it has looked.
        """
        np.save(self._folder / "weights.npy", weights)
        self._say("done")
        time.sleep(60.0)

    def _say(self, what: str) -> None:
        line = json.dumps({"what": what, "at": time.monotonic()})
        with (self._folder / "marks").open("a") as file:
            file.write(line + "\n")


def arguments() -> dict[str, Any]:
    """What a system's process was started with."""
    return dict(json.loads(sys.argv[1]))
