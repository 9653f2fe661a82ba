"""A client that is killed while it answers, and then asked to open the opposite.

    python killed_client.py FOLDER NUM_TRIALS disk|memory [points]

The worst case is played: keys and shares outlive the kill, all other clients sign
whatever the aggregator likes, and the second request names as lost who was a survivor
in the first. Only the record of answered rounds is left to refuse it. Prints what left.

With ``points`` the client dies at its first, second, ... call that touches the disk or
the pipe; else after a random time.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from stage import NAMES, Stage

from fedtrain.core.errors import FedtrainError
from fedtrain.secagg.answered import AnsweredRounds, RememberedRounds
from fedtrain.secagg.envelopes import parsed
from fedtrain.secagg.messages_pb2 import Unmask

_CALLS = ("open", "fsync", "replace", "rename", "write")


def main(folder, num_trials, kind, points=""):
    """Plays the trials; prints how many answers left, how many dealers were bared."""
    stage = Stage().with_inputs()
    first, second = request(stage, *NAMES), request(stage, *NAMES[:3])
    draw = np.random.default_rng(5)
    usual_s = 0.0
    facts = {"first": 0, "second": 0, "both": 0, "bared": 0}
    for trial in range(int(num_trials)):
        answered = record(kind, Path(folder) / str(trial))
        began = time.monotonic()
        kill_s = None if points or trial < 5 else draw.random() * 2 * usual_s
        point = trial if points else None
        one = sent(stage, answered, first, kill_s=kill_s, point=point)
        if trial < 5:
            usual_s = max(usual_s, time.monotonic() - began)
        other = sent(stage, answered, second)
        facts["first"] += bool(one)
        facts["second"] += bool(other)
        facts["both"] += bool(one and other)
        facts["bared"] += bared(one, other)
    sys.stdout.write(json.dumps(facts))


def record(kind, folder):
    """Where the client keeps what it has answered; memory is what a kill erases."""
    return AnsweredRounds(folder) if kind == "disk" else RememberedRounds()


def request(stage, *survivors):
    """An announcement and a request that all clients seem to agree to."""
    announced = stage.survivors(*survivors)
    signatures = [stage.signature(name, announced) for name in survivors]
    return announced, stage.asked(*signatures)


def sent(stage, answered, messages, *, kill_s=None, point=None):
    """What a process of the client sends before it ends or is killed."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        answer(stage, answered, messages, writing, point)
    os.close(writing)
    if kill_s is not None:
        time.sleep(kill_s)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    os.waitpid(process, 0)
    return content


def answer(stage, answered, messages, pipe, point):
    """The child: confirms, opens, sends, and never returns."""
    client = stage.clients["ada"]
    client._answered = answered
    if point is not None:
        die_at(point)
    try:
        client.confirm(messages[0])
        os.write(pipe, client.unmask(messages[1]))
    except FedtrainError:
        os._exit(3)
    os._exit(0)


def die_at(point):
    """Kills this process before its call number ``point`` that leaves a trace."""
    calls = iter(range(point + 1))

    def watched(call):
        def wrapper(*args, **kwargs):
            if next(calls, None) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in _CALLS:
        setattr(os, name, watched(getattr(os, name)))


def bared(one, other):
    """How many dealers had both kinds of share opened."""
    if not (one and other):
        return 0
    bodies = [Unmask.FromString(parsed(message).body) for message in (one, other)]
    seeds, keys = (
        {share.dealer for body in bodies for share in getattr(body, kind)}
        for kind in ("seeds", "keys")
    )
    return len(seeds & keys)


if __name__ == "__main__":
    main(*sys.argv[1:])
