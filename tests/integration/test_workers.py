"""``fedtrain simulate --workers``: real processes, real signals, real ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.cli.main import run as run_command
from fedtrain.cli.workers import _first_lost
from fedtrain.core.errors import WorkerLostError

pytestmark = pytest.mark.network

FEDTRAIN = [sys.executable, "-c", "from fedtrain.cli.main import main; main()"]
SMALL = [
    "data.num_clients=5",
    "evaluation.baselines=false",
    "tracking.tensorboard=false",
    "tracking.html_report=false",
    "rounds.num_rounds=4",
    'runtime={strategy="graph"}',
]
# So long that it cannot end before the signal does it.
LONG = ["rounds.num_rounds=5000", "privacy.target_epsilon=1000"]
WAIT_S = 300.0


def settings(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("-s", setting)]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command in ``tmp_path``; ends it with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*FEDTRAIN, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(child) for child in tasks.read_text().split()]


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def training(folder: Path) -> Path | None:
    """The run's folder once a checkpoint is there."""
    found = list(folder.glob("runs/*/checkpoints/round-*.ckpt"))
    return found[0].parents[1] if found else None


def info(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    return content


def weights(run: Path) -> dict[str, Any]:
    with np.load(run / "weights.npz") as arrays:
        return dict(arrays)


def assert_close(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Up to what rounding grows to over many rounds of clipped and noised steps."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        scale = np.max(np.abs(array))
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=1e-4 * scale)


def test_a_killed_worker_ends_the_run_which_goes_on_to_the_weights_of_one_process(
    tmp_path: Path,
    launch: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # Long enough to be killed in the middle, of few checkpoints.
    rounds = ["rounds.num_rounds=60", "tracking.checkpoint_every=7"]
    process = launch("simulate", "--workers", "2", *settings(*rounds))
    run = wait_until(lambda: training(tmp_path))
    chief, other = children(process.pid)
    os.kill(other, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == WorkerLostError.exit_code
    assert "Worker 1 was ended by SIGKILL" in errors
    assert f"--resume runs/{run.name} --workers 2" in errors
    assert not is_running(chief)
    assert info(run)["status"] == "failed"
    assert not (run / "weights.npz").exists()

    assert run_command(["simulate", "--resume", str(run), "--workers", "2"]) == 0
    assert info(run)["status"] == "finished"
    rounds_told = [
        json.loads(line)["round_number"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    assert rounds_told == list(range(60))
    assert (run / "worker-1.log").read_text().rstrip().endswith("round 59")
    together = weights(run)
    charges = (run / "ledger.jsonl").read_text().splitlines()

    run_command(["simulate", *settings(*rounds)])
    (alone,) = set(tmp_path.glob("runs/*")) - {run}
    assert_close(together, weights(alone))
    # Whatever one process pays, two pay: the ledger is charged once a round.
    assert len(charges) == len((alone / "ledger.jsonl").read_text().splitlines())
    assert capfd.readouterr().out.count("Run folder") == 2


@pytest.mark.slow
def test_a_resumed_run_of_as_many_workers_repeats_the_bits(
    tmp_path: Path, launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rounds = ["rounds.num_rounds=60", "tracking.checkpoint_every=7"]
    process = launch("simulate", "--workers", "2", *settings(*rounds))
    run = wait_until(lambda: training(tmp_path))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert "Worker 0 was ended by SIGKILL" in errors
    assert info(run)["status"] == "failed"
    assert run_command(["simulate", "--resume", str(run), "--workers", "2"]) == 0
    whole = launch("simulate", "--workers", "2", *settings(*rounds))
    assert whole.wait(timeout=WAIT_S) == 0
    (other,) = set(tmp_path.glob("runs/*")) - {run}
    for name, array in weights(other).items():
        np.testing.assert_array_equal(weights(run)[name], array)


@pytest.mark.slow
def test_no_worker_outlives_a_killed_command(tmp_path: Path, launch: Any) -> None:
    process = launch("simulate", "--workers", "2", *settings(*LONG))
    run = wait_until(lambda: training(tmp_path))
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    wait_until(lambda: not any(map(is_running, workers)))
    (run / "checkpoints").stat()


@pytest.mark.slow
def test_ctrl_c_ends_all_workers_and_says_how_to_go_on(
    tmp_path: Path, launch: Any
) -> None:
    process = launch("simulate", "--workers", "2", *settings(*LONG))
    run = wait_until(lambda: training(tmp_path))
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "fedtrain simulate --resume" in errors
    assert info(run)["status"] == "interrupted"
    assert not any(map(is_running, workers))


@pytest.mark.slow
def test_a_worker_that_stops_answering_ends_the_run_in_bounded_time(
    tmp_path: Path, launch: Any
) -> None:
    process = launch("simulate", "--workers", "2", *settings(*LONG))
    wait_until(lambda: training(tmp_path))
    _, other = children(process.pid)
    os.kill(other, signal.SIGSTOP)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == WorkerLostError.exit_code
    assert "stopped answering" in errors
    assert not is_running(other)


def test_workers_inside_a_worker_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert run_command(["simulate", "--workers", "2"]) == 2
    assert "unset TF_CONFIG" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "lost"),
    [
        ([7, -9], 1),
        ([-9, 7], 0),
        ([7, 7, 1], 2),
        ([7, None], 1),
        ([-9, None], 0),
        ([7, None, 1], 2),
    ],
)
def test_the_worker_that_failed_by_itself_is_named(
    codes: list[int | None], lost: int
) -> None:
    assert _first_lost(codes) == lost
