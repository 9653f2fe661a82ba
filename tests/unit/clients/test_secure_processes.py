"""Partners that are real processes, and one of them killed with SIGKILL."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from secure_banks import DEADLINE_S, NAMES, Federation, sum_of
from test_secure_rounds import until

pytestmark = pytest.mark.network
SCRIPT = Path(__file__).with_name("secure_client.py")


@pytest.fixture
def start(tmp_path, authority):
    """Five processes, of which bank-e waits to be killed; the federation, and how
    another one is started."""
    federation = Federation(tmp_path, authority)
    processes = []

    def started(bank, *when):
        path = tmp_path / f"{bank.home.client_id}.invitation"
        path.write_bytes(bank.invitation.to_bytes())
        command = [sys.executable, SCRIPT, path, bank.home.path, tmp_path / "mark"]
        processes.append(subprocess.Popen([*command, *when]))
        return processes[-1]

    yield federation, started
    for process in processes:
        process.kill()
        process.wait()
    federation.close()


@pytest.mark.parametrize(
    "when", ["before", pytest.param("after", marks=pytest.mark.slow)]
)
def test_a_killed_partner_is_lost_for_the_session_and_joins_the_next(
    start, tmp_path, when
):
    federation, started = start
    *others, last = federation.banks
    with federation.aggregator() as rounds:
        running = [started(bank) for bank in others]
        killed = started(last, when)
        collecting = federation.collecting(rounds)
        until((tmp_path / "mark").exists)
        killed.kill()
        assert killed.wait(60) == -signal.SIGKILL
        until(lambda: rounds.awaited == ("bank-e",))
        federation.clock.now += DEADLINE_S
        in_the_sum = NAMES if when == "after" else NAMES[:4]
        assert_sum(collecting.result(240), in_the_sum, 0)
        rounds.committed(0, "ab" * 32)
        running.append(started(last))
        assert_sum(federation.collecting(rounds, 1).result(240), NAMES, 1)
        rounds.finish("finished", "done")
        assert [process.wait(240) for process in running] == [0] * 5
    assert federation.attempts == [0, 0]
    left = {"before": 1, "after": 2}[when]
    assert last.left.count("sending") == left


def assert_sum(collected, names, round_number):
    assert collected.accepted == tuple(names)
    np.testing.assert_array_equal(collected.total()[0], sum_of(names, round_number))
