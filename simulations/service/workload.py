"""One vector, ten clients, and a training that costs next to nothing, or a stated much.

Needs numpy alone: every system's clients import it, in their own environments.
"""

import functools
import json
import math
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
_BATCH_SIZE = 32
_NUM_LAYERS = 4
_LEARNING_RATE = np.float32(1e-3)  # small: the last bits do not grow


def start(num_weights: int) -> Weights:
    """The first weights."""
    return np.zeros(num_weights, np.float32)


class Training:
    """What one client does in a round: two passes of numpy, then steps of SGD.

    Args:
      position: Of the client in the cohort.
      num_weights: Length of the vector.
      batches: Steps, each of 32 rows of the client's own, through a dense network of
        four square layers that together have that many weights.
    """

    def __init__(self, position: int, num_weights: int, batches: int = 0) -> None:
        # Tells clients and places apart: no chunk can be lost or change its place.
        ramp = np.arange(num_weights, dtype=np.float32) / np.float32(num_weights)
        self._pull = ramp * np.float32(0.01 * (position + 1))
        draws = np.random.default_rng(position)
        shape = [batches, _BATCH_SIZE, _width(num_weights)]
        self._batches = 2 * draws.random(shape, dtype=np.float32) - 1

    def __call__(self, weights: Weights) -> Weights:
        """The client's weights after it has trained."""
        trained = weights * np.float32(0.9)
        trained += self._pull
        for rows in self._batches:
            _step(trained, rows)
        return trained


@functools.cache
def expected(num_weights: int, batches: int = 0) -> Weights:
    """The weights after all rounds, computed here."""
    weights = start(num_weights)
    for _ in range(NUM_ROUNDS):
        total = np.zeros(num_weights)
        for position in range(NUM_CLIENTS):
            total += Training(position, num_weights, batches)(weights)
        weights = (total / NUM_CLIENTS).astype(np.float32)
    return weights


def _step(weights: Weights, rows: Weights) -> None:
    """One step, in place, towards a network whose outputs are its inputs."""
    width = rows.shape[1]
    layers = weights[: _NUM_LAYERS * width**2].reshape(_NUM_LAYERS, width, width)
    scale = np.float32(1 / math.sqrt(width))
    values = [rows]
    for layer in layers:
        values.append(np.tanh(scale * (values[-1] @ layer)))
    slope = (values[-1] - rows) / np.float32(len(rows))
    for layer, inputs, outputs in zip(
        layers[::-1], values[-2::-1], values[::-1], strict=False
    ):
        slope = scale * slope * (1 - outputs**2)
        change = _LEARNING_RATE * (inputs.T @ slope)
        slope = slope @ layer.T
        layer -= change


def _width(num_weights: int) -> int:
    return math.isqrt(num_weights // _NUM_LAYERS)


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
