import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clients import audit

pytestmark = pytest.mark.network
END_S = 300.0  # of a process on a slow machine
SCRIPT = Path(__file__).with_name("light_client.py")


@pytest.fixture
def start(tmp_path, bank):
    """Starts the client as a process of its own; ends it at the end."""
    invitation, counter = tmp_path / "bank-a.invitation", tmp_path / "counter"
    invitation.write_bytes(bank.invitation.to_bytes())
    counter.touch()
    processes = []

    def started():
        command = [sys.executable, SCRIPT, invitation, bank.home.path, counter]
        processes.append(subprocess.Popen(command))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.wait(END_S)


def test_killed_between_saving_and_acknowledgement_it_sends_the_same_bytes(
    aggregator, bank, start, tmp_path
):
    # The contribution has arrived, its receipt never does: the process is gone by then.
    first = start()
    aggregator.faults["Submit"].append(lambda: (first.kill(), first.wait()))
    assert first.wait(END_S) == -signal.SIGKILL
    (unacknowledged,) = aggregator.arrived[0]
    assert start().wait(END_S) == 0
    assert aggregator.arrived[0] == [unacknowledged, unacknowledged]
    assert sorted(aggregator.taken) == [0, 1]
    assert (tmp_path / "counter").read_text() == "cc"
    assert bank.left == ["sending", "sending", "accepted", "sending", "accepted"]
    assert audit.verify(bank.home.audit_path)["length"] == 5
