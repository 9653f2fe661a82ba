"""Serving a federation: the port first, then training, and everything resumable."""

import importlib
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from aggregator.home import Federation, current_run, note_run
from aggregator.journal import Journal
from aggregator.memory import give_memory_back, give_tensors_back
from aggregator.open_run import OpenRun, ended_by_sigterm, opened_run, tell_the_end
from aggregator.own_noise import forget_own_key
from aggregator.rounds import RunStoppedError
from aggregator.stopping import PAUSED, note_status
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.core.errors import ConfigError, StoppedError
from fedtrain.project.run_folder import STOPPED, RunFolder


def serve(
    federation: Federation, *, console: Console, exports: bool = False
) -> dict[str, Any]:
    """Runs the federation's rounds to their end; goes on where it was stopped.

    A run that has begun answers its partners at once; TensorFlow is loaded after.

    Args:
      federation: From ``init``.
      console: Where progress is shown.
      exports: Whether the finished model is exported, as ``[export]`` says.

    Returns:
      The run's summary; with ``release``, the folder of what was exported.

    Raises:
      TooFewClientsError: If too few partners answered; the run can be resumed.
      StoppedError: If the operator has ended the run; partners were told.
      RunStoppedError: If the operator has paused it; the run can be resumed.
      ConfigError: If the project file no longer gives the plan that was approved.
      RefusedExportError: If the export failed. The run is finished all the same.
    """
    give_memory_back()
    give_tensors_back()
    with ExitStack() as stack:
        stack.enter_context(ended_by_sigterm())
        journal = Journal(federation.journal, federation.service().database)
        stack.callback(journal.close)
        run_id = current_run(federation)
        opened = None
        if run_id is not None:
            opened = opened_run(federation, journal, run_id, stack, console)
            _refuse_ended(federation, opened, console)
        load_tensorflow(one_thread_per_operation=True)
        trained = importlib.import_module("aggregator.trained")
        exporting = importlib.import_module("aggregator.exporting") if exports else None
        check = [exporting.check_export] if exporting is not None else []
        run = trained.prepared(federation, run_id, checks=check)
        if opened is None:
            note_run(federation, run.run_id)
            opened = opened_run(federation, journal, run.run_id, stack, console)
        stack.callback(opened.rounds.stop)
        try:
            summary: dict[str, Any] = trained.trained(
                run, opened.rounds, console=console, ended=opened.stopper.ended
            )
        except (RunStoppedError, StoppedError):
            end_stopped(federation, opened, console)
            raise
        tell_the_end(opened, console)
        if exporting is not None:
            release = exporting.exported(run.folder.path, console=console)
            summary["release"] = str(release)
        return summary


def _refuse_ended(federation: Federation, opened: OpenRun, console: Console) -> None:
    """Tells the partners of a run that ended before, and then the operator."""
    ending, run_id = opened.rounds.book.ending, opened.rounds.run_id
    if ending is None:
        return
    # Nobody has called this process yet: all that ever did may want to hear it.
    tell_the_end(opened, console, everybody=True)
    folder = RunFolder(federation.runs / run_id)
    forget_own_key(federation.plan(), folder)  # who ended it may have been killed
    release = f" `fedtrain export {folder.path}` releases its model."
    raise ConfigError(
        f"The run {run_id} has ended ({ending.text})."
        f"{release if folder.weights.is_file() else ''} Another run is another "
        "federation: `fedtrain-aggregator init --home`."
    )


def end_stopped(federation: Federation, opened: OpenRun, console: Console) -> None:
    """Ends the run, or pauses it, if the operator has asked so by ``runs stop``."""
    request, run_id = opened.stopper.request, opened.rounds.run_id
    if request is None:
        return
    if not request.is_final:
        note_status(federation.runs, run_id, PAUSED, request.text)
        return
    opened.rounds.finish(STOPPED, request.text)
    forget_own_key(federation.plan(), RunFolder(federation.runs / run_id))
    note_status(federation.runs, run_id, STOPPED, request.text)
    tell_the_end(opened, console)
