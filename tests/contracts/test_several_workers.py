"""The same rounds over several devices and several processes equal plain Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedtrain.core.addresses import free_addresses

PROCESS = Path(__file__).with_name("replica_process.py")
# Client states, noise with a state at the server, noise at the clients, a constraint.
NAMES = ["client_state", "adaptive_clipping", "dp_sgd", "fine_tuned"]
TIMEOUT_S = 400


def reports(kind, configs):
    """What the processes print, one for each environment."""
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROCESS), kind, *NAMES],
            env=os.environ | config,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for config in configs
    ]
    try:
        done = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, done, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in done]


def check(report):
    assert list(report["rounds"]) == NAMES
    for name, found in report["rounds"].items():
        assert found["state"] < 1e-6, name
        assert found["clients"] < 1e-6, name
        actual, expected = found["metrics"]
        assert actual == pytest.approx(expected, rel=1e-5), name


def test_several_devices_agree_with_plain_python():
    (report,) = reports("devices", [{}])
    assert report["num_replicas"] == 3
    assert report["heard"]
    assert report["refusal"] == ""
    check(report)


@pytest.mark.network
def test_two_processes_agree_with_plain_python_and_hold_the_same_bits():
    cluster = {"worker": free_addresses(2)}
    configs = [
        {"cluster": cluster, "task": {"type": "worker", "index": index}}
        for index in range(2)
    ]
    found = reports("workers", [{"TF_CONFIG": json.dumps(c)} for c in configs])
    assert [report["worker"] for report in found] == [0, 1]
    for report in found:
        assert report["num_replicas"] == 2
        assert report["heard"]
        assert "Worker 1 has other settings" in report["refusal"]
        check(report)
    chief, other = ([r["bits"] for r in report["rounds"].values()] for report in found)
    assert chief == other
