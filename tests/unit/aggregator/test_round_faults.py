import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aggregator.journal import JournalUnavailableError
from aggregator.rounds import RunStoppedError
from fedtrain.core.errors import TooFewClientsError
from fedtrain.wire import messages_pb2 as pb
from tests.unit.aggregator.light_round import (
    Collecting,
    arrays_of,
    call,
    equal,
    opened,
    submit,
    sum_of,
)
from tests.unit.aggregator.served_run import Client, Federation

_COHORT = ("d", "a", "e", "b", "c")
_CLIENTS = st.sampled_from(_COHORT)


class _Rounds(RuleBasedStateMachine):
    """Any order of answers, losses, full disks and deaths of the aggregator.

    What was acknowledged is remembered here, apart from the aggregator, and compared
    with the sum of a fault-free run over those who survived.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.number = 0
        self.committed = 0
        self._begin_round()
        self._start()

    @rule(client=_CLIENTS)
    def answers(self, client):
        code = self._submit(client, arrays_of(client, self.number))
        if client in self.acknowledged:
            assert code == pb.DUPLICATE
        elif client in self.lost:
            assert code in (pb.NON_FINITE, pb.LATE)
        elif len(self.acknowledged) >= self.goal:
            assert code == pb.LATE
        else:
            assert code == pb.ACCEPTED
            self.acknowledged.add(client)

    @rule(client=_CLIENTS)
    def answers_with_other_numbers(self, client):
        if client in self.acknowledged:
            other = arrays_of(client, self.number + 100)
            assert self._submit(client, other) == pb.CONFLICT

    @precondition(lambda self: not self.is_full())
    @rule(client=_CLIENTS)
    def answers_with_nan(self, client):
        if client in self.acknowledged | self.lost:
            return
        bad = arrays_of(client, self.number)
        bad[0][0, 0] = np.nan
        assert self._submit(client, bad) == pb.NON_FINITE
        self.lost.add(client)

    @precondition(lambda self: not self.is_full())
    @rule(client=_CLIENTS)
    def answers_while_the_disk_is_full(self, client):
        if client in self.acknowledged | self.lost:
            return
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(self.journal, "append", _unavailable)
            code = self._submit(client, arrays_of(client, self.number))
        assert code == pb.BUSY

    @rule()
    def is_killed_and_starts_again(self):
        self._kill()
        self._start()

    @precondition(lambda self: self.is_full() and self.survivors())
    @rule(dies_before_commit=st.booleans())
    def closes(self, dies_before_commit):
        if dies_before_commit:
            self.collecting.done()
            self._kill()
            self._start()
        collected = self.collecting.done()
        assert collected.accepted == self.survivors()
        assert set(collected.lost) == set(_COHORT) - self.acknowledged
        assert equal(collected.total(), sum_of(self.survivors(), self.number))
        self.rounds.charged(self.number, {})
        self.rounds.committed(self.number, f"{self.number:064d}")
        again = self.rounds.collect(self._call())
        assert equal(again.total(), sum_of(self.survivors(), self.number))
        self.number += 1
        self._begin_round()
        self.collecting = Collecting(self.rounds, self._call())

    @precondition(lambda self: len(self.lost) == len(_COHORT))
    @rule()
    def has_lost_all_and_asks_again(self):
        with pytest.raises(TooFewClientsError):
            self.collecting.done()
        self.attempt += 1
        self.acknowledged, self.lost = set(), set()
        self.collecting = Collecting(self.rounds, self._call())

    def is_full(self):
        answered = self.acknowledged | self.lost
        return len(self.acknowledged) >= self.goal or len(answered) == len(_COHORT)

    def survivors(self):
        return tuple(client for client in _COHORT if client in self.acknowledged)

    def teardown(self):
        self._kill()
        shutil.rmtree(self.folder)

    def _begin_round(self):
        self.goal = (3, 5, 2)[self.number % 3]
        self.attempt = 0
        self.acknowledged, self.lost = set(), set()

    def _call(self):
        return call(_COHORT, round_number=self.number, goal=self.goal)

    def _submit(self, client, arrays):
        return submit(
            self.rounds,
            client,
            arrays,
            round_number=self.number,
            attempt=self.attempt,
        )

    def _start(self):
        self.journal, self.rounds = opened(self.folder)
        self.collecting = Collecting(self.rounds, self._call())

    def _kill(self):
        # Nothing is tidied up on purpose: what the next start finds is on the disk.
        self.rounds.stop()
        try:
            self.collecting.done()
        except (RunStoppedError, TooFewClientsError) as error:
            if isinstance(error, TooFewClientsError):
                self.attempt += 1
                self.acknowledged, self.lost = set(), set()
        self.journal.close()


def _unavailable(_):
    raise JournalUnavailableError("the disk is full")


_Rounds.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestRounds = _Rounds.TestCase


@pytest.mark.slow
def test_rounds_under_very_many_orders_of_events():
    run_state_machine_as_test(
        _Rounds, settings=settings(TestRounds.settings, max_examples=1000)
    )


_AGGREGATOR = """
import sys
from pathlib import Path
import numpy as np
from aggregator.authority import Authority
from aggregator.calls import Served
from aggregator.server import Server, serving
from tests.unit.aggregator.light_round import call, opened
from tests.unit.aggregator.served_run import plan
folder, port = Path(sys.argv[1]), sys.argv[2]
journal, rounds = opened(folder, plan_sha256=plan().sha256)
served = Served(rounds, Authority(folder / "authority"), plan().canonical())
with serving(Server(served, address=f"localhost:{port}")) as port:
    assert "tensorflow" not in sys.modules
    print(port, flush=True)
    for number in range(4):
        collected = rounds.collect(call(["a", "b", "c"], round_number=number))
        total = collected.total()
        np.savez(folder / f"total-{number}.npz", *total)
        rounds.committed(number, "00" * 32)
    rounds.finish("finished", "four rounds")
    print(collected.attempt, flush=True)
    sys.stdin.read()
assert "tensorflow" not in sys.modules
"""


@pytest.mark.network
def test_a_killed_aggregator_resumes_and_gives_the_fault_free_sums(tmp_path):
    federation = Federation.of(tmp_path, ["a", "b", "c"])
    process = _started(tmp_path, 0)
    port = int(process.stdout.readline())
    stop = threading.Event()
    workers = [
        threading.Thread(target=_work, args=(Client(federation, name, port), stop))
        for name in ("a", "b", "c")
    ]
    for worker in workers:
        worker.start()
    try:
        for number in (0, 2):
            _until_file(tmp_path / f"total-{number}.npz", process)
            process.kill()
            process.communicate()
            process = _started(tmp_path, port)
            assert int(process.stdout.readline()) == port
        assert process.stdout.readline() == b"0\n"
    finally:
        stop.set()
        process.communicate()
        for worker in workers:
            worker.join()
    assert process.returncode == 0
    for number in range(4):
        with np.load(tmp_path / f"total-{number}.npz") as total:
            assert equal(list(total.values()), sum_of(("a", "b", "c"), number))


def _started(folder, port):
    return subprocess.Popen(
        [sys.executable, "-c", _AGGREGATOR, folder, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )


def _work(client, stop):
    """A partner's program: does what it is told, and tries again for ever."""
    while not stop.is_set():
        try:
            client.work(1000)
        except grpc.RpcError:
            stop.wait(0.05)
    client.close()


def _until_file(path, process):
    give_up = time.monotonic() + 300.0
    while not path.exists():
        assert time.monotonic() < give_up
        assert process.poll() is None
        time.sleep(0.05)
