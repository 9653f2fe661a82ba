"""Stopping a run from outside: a request in a file, which the serving process finds."""

import contextlib
import importlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.events import Draft, now_ms
from aggregator.home import Federation, current_run
from aggregator.journal import Journal, locked_folder
from aggregator.own_noise import forget_own_key
from aggregator.rounds import Rounds
from aggregator.standing import standing
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.core.errors import ConfigError, FedtrainError, JournalError
from fedtrain.core.files import write_atomically
from fedtrain.project.run_folder import STOPPED, RunFolder

_FILE = "stop.json"
_POLL_S = 0.5
PAUSED = "interrupted"


class StopRequest(NamedTuple):
    """What the operator asked for.

    Attributes:
      run_id: Of the run.
      text: What partners are told.
      is_final: Whether the run ends; else it only pauses until it is served again.
    """

    run_id: str
    text: str
    is_final: bool


class Stopper:
    """Looks for a request, and ends the training thread's waiting when there is one.

    Attributes:
      request: The one that was found; None while there is none.
    """

    def __init__(self, federation: Federation, rounds: Rounds) -> None:
        self.request: StopRequest | None = None
        self._path = federation.path / _FILE
        self._rounds = rounds
        self._done = threading.Event()

    def ended(self) -> str | None:
        """What partners are told if the run is to end for good; None if it is not."""
        request = self.request
        return request.text if request is not None and request.is_final else None

    def watch(self) -> None:
        """Until ``end``; for a thread of its own."""
        while not self._done.wait(_POLL_S):
            request = _read(self._path)
            if request is None or request.run_id != self._rounds.run_id:
                continue
            self.request = request
            self._rounds.stop()
            return

    def end(self) -> None:
        """Ends ``watch``; a request that was found is done with."""
        self._done.set()
        if self.request is not None:
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def watched(federation: Federation, rounds: Rounds) -> Iterator[Stopper]:
    """A ``Stopper`` that looks, in a thread of its own, while the block lasts."""
    stopper = Stopper(federation, rounds)
    thread = threading.Thread(target=stopper.watch, name="stopper", daemon=True)
    thread.start()
    try:
        yield stopper
    finally:
        stopper.end()
        thread.join()


def stop_run(
    federation: Federation, text: str, *, is_final: bool, wait_s: float = 60.0
) -> str:
    """Ends, or pauses, the run of ``federation``, whether it is being served or not.

    Returns:
      What was done, in a sentence.

    Raises:
      ConfigError: If there is no run that goes on.
    """
    run_id = current_run(federation)
    if run_id is None:
        raise ConfigError("There is no run yet; nothing needs to be stopped.")
    ended = standing(federation)
    if ended["status"] != "running":
        raise ConfigError(f"The run {run_id} has ended already: {ended['text']}.")
    request = StopRequest(run_id, text, is_final)
    try:
        lock = locked_folder(federation.journal)
    except JournalError:
        return _asked(federation, request, wait_s)
    lock.release()
    if not is_final:
        return f"{run_id} is not being served; it is resumable as it is."
    written = _end_unserved(federation, request)
    return (
        f"{run_id} has ended, not resumable. Partners hear of it when `serve` is "
        f"started once more. {written}".rstrip()
    )


def note_status(runs: Path, run_id: str, status: str, text: str) -> None:
    """Writes into the run's folder that the operator has ended or paused it."""
    folder = RunFolder(runs / run_id)
    info = folder.read_json(folder.info)
    if info:
        folder.write_json(folder.info, info | {"status": status, "error": text})


def _asked(federation: Federation, request: StopRequest, wait_s: float) -> str:
    path = federation.path / _FILE
    write_atomically(path, json.dumps(request._asdict()) + "\n", mode=0o600)
    give_up = time.monotonic() + wait_s
    while path.exists() and time.monotonic() < give_up:
        time.sleep(_POLL_S)
    if path.exists():
        return (
            f"Asked the serving process to stop {request.run_id}; it has not done so "
            f"within {wait_s:g} s and will when its present step is done."
        )
    if request.is_final:
        return (
            f"{request.run_id} has ended, not resumable; partners that call are told."
        )
    return f"{request.run_id} is paused, resumable: `serve` goes on with it."


def _end_unserved(federation: Federation, request: StopRequest) -> str:
    journal = Journal(federation.journal, federation.service().database)
    try:
        # First: killed in the middle, the run has not ended and can be ended again.
        written = _written(federation, request)
        body = {"status": STOPPED, "text": request.text}
        draft = Draft(request.run_id, None, 0, "finished", body, now_ms())
        journal.append([draft])
    finally:
        journal.close()
    folder = RunFolder(federation.runs / request.run_id)
    forget_own_key(federation.plan(), folder)
    note_status(federation.runs, request.run_id, STOPPED, request.text)
    return written


def _written(federation: Federation, request: StopRequest) -> str:
    """The weights of the last round, for a run that has one; TensorFlow is loaded."""
    if not RunFolder(federation.runs / request.run_id).checkpoints.is_dir():
        return ""
    load_tensorflow(one_thread_per_operation=True)
    trained = importlib.import_module("aggregator.trained")
    try:
        written: str = trained.write_ended(federation, request.run_id, request.text)
    except FedtrainError as error:  # it has ended, whatever can be made of it
        return f"Its last weights were not written: {error}"
    return written


def _read(path: Path) -> StopRequest | None:
    try:
        return StopRequest(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
