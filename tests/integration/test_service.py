"""The comparison of services: its bookkeeping; and, slow, a small run of it."""

import importlib
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def module(name):
    return importlib.import_module(f"simulations.service.{name}")


def test_the_expected_weights_are_those_of_the_clients():
    workload = module("workload")
    weights, ramp = np.zeros(1000), np.arange(1000) / 1000
    for _ in range(workload.NUM_ROUNDS):
        weights = 0.9 * weights + 0.055 * ramp  # the clients' mean of 0.01 to 0.10
    found = workload.expected(1000)
    assert np.abs(found - weights).max() < 1e-6
    assert np.abs(np.roll(found, 1) - found).max() > workload.TOLERANCE


def test_steps_of_training_bring_a_client_closer_to_its_rows(monkeypatch):
    workload = module("workload")
    trained = workload.expected(1000, 100)
    assert np.abs(trained - workload.expected(1000)).max() > workload.TOLERANCE
    # Its own rate is for ten million weights, which it must not make unstable.
    monkeypatch.setattr(workload, "_LEARNING_RATE", np.float32(1.0))
    weights = np.random.default_rng(5).normal(size=1000).astype(np.float32)
    rows = workload.Training(0, 1000, 20)._batches

    def distance(trained):
        values = rows[0]
        for layer in trained[:900].reshape(4, 15, 15):
            values = np.tanh(values @ layer / np.sqrt(15))
        return np.square(values - rows[0]).mean()

    before = distance(weights)
    for _ in range(10):
        for batch in rows:
            workload._step(weights, batch)
    assert distance(weights) < 0.9 * before


def test_figures_are_of_the_rounds_after_the_first(tmp_path):
    watch = module("watch")
    marks = [{"what": "idle", "at": 0.0}, {"what": "begin", "at": 2.0}]
    marks += [{"what": "round", "at": 3.0 + 2 * number} for number in range(6)]
    samples = [
        watch.Sample(at + 0.5, resident, 1.0 * at, 3.0 * at, 10 * at, 6 * at)
        for at, resident in [(0, 5), (1, 7), (2, 50), (3, 70), (8, 90), (13, 60)]
    ]
    assert watch._figures(marks, samples) == {
        "seconds": [2.0] * 5,
        "idle_bytes": 7,
        "peak_bytes": 90,
        "cpu_seconds": 2.2,  # from the sample nearest to the first round's end
        "all_cpu_seconds": 6.6,
        "loopback_bytes": 22.0,
        "wire_bytes": 13.0,
    }


def test_the_table_has_ratios_to_the_bound_and_names_who_failed():
    result = {
        "seconds": [2.0, 4.0, 3.0],
        "idle_bytes": 10e6,
        "peak_bytes": 90e6,
        "cpu_seconds": 1.0,
        "all_cpu_seconds": 2.0,
        "wire_bytes": 800e6,
        "difference": 1e-7,
    }
    slower = {**result, "seconds": [4.5]}
    results = {"bound": result, "ours": slower, "flower": {"failure": "no"}}
    text = module("table").table(results, 10_000_000)
    assert (
        "| fedtrain | 4.50 | 4.50 to 4.50 | 1.50 | 1.00 | 2.00 | 800 | 80 | 2.0 |"
        in (text)
    )
    assert "| Flower | failed |" in text


def _can_contain():
    command = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork"]
    if not all(map(shutil.which, ("unshare", "setpriv", "ip", "ss"))):
        return False
    done = subprocess.run(
        [*command, "--mount-proc", "true"], check=False, capture_output=True
    )
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("peer", ["bound", "bare_grpc", "ours"])
def test_a_small_run_gives_the_expected_weights(tmp_path, peer):
    if not _can_contain():
        pytest.skip("namespaces of one's own are not allowed here")
    given = Namespace(folder=tmp_path, weights=100_000, timeout=600.0)
    system = module("systems").SYSTEMS[peer]
    found = module("run").measured(system, sys.executable, given)
    assert "failure" not in found, found
    assert len(found["seconds"]) == 5
    assert 8e6 <= found["wire_bytes"] < 9e6
