"""A round of a few numbers, without TensorFlow, TLS or a network."""

import hashlib
import itertools
import threading
import time

import numpy as np

from aggregator.journal import Journal
from aggregator.rounds import RoundCall, Rounds
from aggregator.uploads import RefusedError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import ArraySpec, to_bytes

PLAN_SHA256 = "ab" * 32
SPECS = (ArraySpec((3, 2), "float32"), ArraySpec((), "int64"))
_SEQUENCES = itertools.count(1)


def call(cohort, *, round_number=0, goal=None, least=1, deadline_s=30.0, **changes):
    """What is asked of ``cohort``; its broadcast depends on the round."""
    found = RoundCall(
        run_id="run",
        round_number=round_number,
        kind="train",
        cohort=tuple(cohort),
        report_goal=len(cohort) if goal is None else goal,
        least_reports=least,
        deadline_s=deadline_s,
        max_deadlines=1,
        broadcast=[np.full(4, round_number, np.float32)],
        contribution=SPECS,
        info={"round": round_number},
    )
    return found._replace(**changes)


def arrays_of(client_id, round_number=0):
    """What this client contributes, a function of its name and the round."""
    digest = hashlib.sha256(f"{client_id}/{round_number}".encode()).digest()
    numbers = np.frombuffer(digest[:24], np.uint32).astype(np.float32) / 1e6
    return [numbers.reshape(3, 2), np.array(digest[0], np.int64)]


def sum_of(clients, round_number=0):
    """What a fault-free round over these clients gives, in their order."""
    total = None
    for client in clients:
        arrays = arrays_of(client, round_number)
        total = (
            arrays
            if total is None
            else [a + b for a, b in zip(total, arrays, strict=True)]
        )
    return total


def submit(rounds, client_id, arrays, *, round_number=0, attempt=0, chunk=7):
    """Sends ``arrays`` as a client's program would; gives the receipt's code."""
    content = to_bytes(SPECS, arrays)
    header = pb.SubmitHeader(
        attempt=attempt,
        kind=pb.TRAIN,
        num_bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
        plan_sha256=bytes.fromhex(PLAN_SHA256),
    )
    return send(rounds, client_id, header, content, round_number, chunk)


def send(rounds, client_id, header, content, round_number=0, chunk=7):
    """Sends ``content`` under ``header``."""
    request = pb.SignedRequest(
        client_id=client_id, round_number=round_number, sequence=next(_SEQUENCES)
    )
    try:
        upload = rounds.submission(request, header)
    except RefusedError as refused:
        return refused.code
    try:
        for start in range(0, len(content), chunk):
            upload.write(content[start : start + chunk])
        return upload.finish().code
    except RefusedError as refused:
        return refused.code
    finally:
        upload.abandon()


class Collecting:
    """A ``collect`` in a thread of its own."""

    def __init__(self, rounds, round_call):
        self._result = self._error = None
        self._thread = threading.Thread(target=self._run, args=(rounds, round_call))
        self._thread.start()
        until(lambda: rounds.book.current is not None or not self._thread.is_alive())

    def _run(self, rounds, round_call):
        try:
            self._result = rounds.collect(round_call)
        except Exception as error:  # noqa: BLE001 # raised again by ``done``
            self._error = error

    def done(self):
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


def until(condition, timeout_s=120.0):
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def equal(total, expected):
    """Whether both are the same arrays, to the bit."""
    return all(
        a.tobytes() == b.tobytes() and a.dtype == b.dtype
        for a, b in zip(total, expected, strict=True)
    )


def opened(folder, **options):
    """A journal and its rounds, as after a start of the aggregator."""
    journal = Journal(folder / "state")
    values = {"plan_sha256": PLAN_SHA256, **options}
    rounds = Rounds(journal, run_id="run", folder=folder / "spool", **values)
    return journal, rounds
