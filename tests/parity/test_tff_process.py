"""Whatever ends Python ends TFF's worker too."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_federated")
pytestmark = pytest.mark.tff

PROGRAM = """
import os, signal, sys
import numpy as np
import fedtrain
import tensorflow_federated as tff
from fedtrain.runtimes.tff import TffRuntime

@tff.federated_computation(tff.FederatedType(np.float32, tff.CLIENTS))
def total(values):
    return tff.federated_sum(values)

runtime = TffRuntime()
with tff.framework.get_context_stack().install(runtime.context):
    assert total([1.0, 2.0]) == 3.0
children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
grandchildren = [
    pid for child in children
    for pid in open(f"/proc/{child}/task/{child}/children").read().split()
]
print(*children, *grandchildren, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("how", "code"), [("forgotten", 0), ("killed", -9)])
def test_no_process_outlives_python(how, code):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == code, finished.stderr
    assert "Traceback" not in finished.stderr
    guard, worker = finished.stdout.split()
    deadline = time.monotonic() + 20
    while (is_running(guard) or is_running(worker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(guard)
    assert not is_running(worker)
