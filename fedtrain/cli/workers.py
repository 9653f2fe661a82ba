"""Several worker processes on this machine, for a try: ``simulate --workers N``.

Each is the same command with its own ``TF_CONFIG``, as on several machines. The first,
the chief, has the terminal; what the others print is kept in the run's folder. None of
them outlives this process.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import ConfigError, WorkerLostError
from fedtrain.project.run_folder import RunFolder

TF_CONFIG = "TF_CONFIG"
# Read by fedtrain.project.distributed, which may not be imported before TensorFlow.
_WORKERS_DIR = "FEDTRAIN_WORKERS_DIR"
_POLL_S = 0.1
# A chief that has lost a worker hears of it from TensorFlow, within about ten seconds.
_LOSS_GRACE_S = 20.0
_INTERRUPT_GRACE_S = 20.0
_Process = subprocess.Popen[bytes]


def run_workers(arguments: Sequence[str], *, num_workers: int) -> int:
    """Runs ``fedtrain ARGUMENTS`` in ``num_workers`` processes; returns the exit code.

    Raises:
      ConfigError: If this process is itself a worker by ``TF_CONFIG``.
      WorkerLostError: If one of them ended before its time.
    """
    if os.environ.get(TF_CONFIG):
        raise ConfigError(
            "TF_CONFIG says that this process is one worker of several, and --workers "
            "would start others. Leave out --workers, or unset TF_CONFIG."
        )
    with tempfile.TemporaryDirectory(prefix="fedtrain-workers-") as name:
        folder = Path(name)
        with _started(arguments, num_workers, folder) as workers:
            try:
                code = _chief_code(workers)
            except KeyboardInterrupt:
                code = _interrupted(workers)
            codes = [code, *(worker.poll() for worker in workers[1:])]
        return _closed(codes, folder)


@contextlib.contextmanager
def _started(
    arguments: Sequence[str], num_workers: int, folder: Path
) -> Iterator[list[_Process]]:
    addresses = free_addresses(num_workers)
    workers: list[_Process] = []
    try:
        # One by one, so that those already started are ended if another cannot be.
        workers.extend(
            _start(arguments, addresses, index, folder) for index in range(num_workers)
        )
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


def _start(
    arguments: Sequence[str], addresses: list[str], index: int, folder: Path
) -> _Process:
    task = {"type": "worker", "index": index}
    config = {"cluster": {"worker": addresses}, "task": task}
    own = {TF_CONFIG: json.dumps(config), _WORKERS_DIR: str(folder)}
    module = "fedtrain.cli.worker_process"
    with contextlib.ExitStack() as stack:
        log = None
        if index > 0:
            log = stack.enter_context((folder / _log_name(index)).open("wb"))
        # A session of its own: Ctrl-C in the terminal reaches this process only.
        return subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid()), *arguments],
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _chief_code(workers: list[_Process]) -> int:
    """Waits for the chief; for a while only, once another worker has failed."""
    deadline = float("inf")
    while time.monotonic() < deadline:
        code = workers[0].poll()
        if code is not None:
            return code
        if deadline == float("inf") and any(worker.poll() for worker in workers[1:]):
            deadline = time.monotonic() + _LOSS_GRACE_S
        time.sleep(_POLL_S)
    workers[0].kill()
    return workers[0].wait()


def _interrupted(workers: list[_Process]) -> int:
    workers[0].send_signal(signal.SIGINT)
    try:
        return workers[0].wait(_INTERRUPT_GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        return 130


def _closed(codes: list[int | None], folder: Path) -> int:
    """The exit code, from those that the workers had before this process ended them."""
    run = _run_folder(folder)
    if run is not None:
        _keep_logs(folder, run)
    if codes[0] == 130:
        _set_status(run, "interrupted")
    if codes[0] is not None and codes[0] >= 0 and codes[0] != WorkerLostError.exit_code:
        return codes[0]
    lost = _first_lost(codes)
    message = f"Worker {lost} {_how_it_ended(codes[lost])}, so the run has ended."
    _set_status(run, "failed", error=message)
    said = "" if lost == 0 else _last_words(folder / _log_name(lost))
    raise WorkerLostError(f"{message}{said}{_way_on(run, len(codes))}")


def _first_lost(codes: list[int | None]) -> int:
    """The worker that failed by itself; one that lost another says so by its code."""
    told = (None, 0, WorkerLostError.exit_code)
    by_itself = [i for i, code in enumerate(codes) if i and code not in told]
    silent = [i for i, code in enumerate(codes) if code is None]
    return [*by_itself, *(silent if codes[0] == told[-1] else []), 0][0]


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "stopped answering" if code is None else f"ended with exit code {code}"


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    lines = [line for line in lines if line.startswith(("Error", "An error"))]
    return f" It said: {lines[-1]}" if lines else ""


def _way_on(run: RunFolder | None, num_workers: int) -> str:
    if run is None:
        return ""
    where = shlex.quote(os.path.relpath(run.path))
    return (
        " Rounds up to the newest checkpoint are kept; go on with: fedtrain simulate "
        f"--resume {where} --workers {num_workers}"
    )


def _run_folder(folder: Path) -> RunFolder | None:
    told = folder / "run"
    return RunFolder(Path(told.read_text("utf-8"))) if told.is_file() else None


def _keep_logs(folder: Path, run: RunFolder) -> None:
    for log in folder.glob("worker-*.log"):
        with (run.path / log.name).open("ab") as kept, log.open("rb") as said:
            shutil.copyfileobj(said, kept)


def _set_status(run: RunFolder | None, status: str, **facts: str) -> None:
    """Where the chief was ended before it could say what happened."""
    if run is None:
        return
    info = run.read_json(run.info)
    if info.get("status") in ("running", "failed"):
        run.write_json(run.info, info | {"status": status} | facts)


def _log_name(index: int) -> str:
    return f"worker-{index}.log"
