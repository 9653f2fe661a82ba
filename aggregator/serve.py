"""Serving a federation: the port first, then training, and everything resumable."""

import importlib
import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from rich.console import Console

from aggregator.calls import Served
from aggregator.events import now_ms
from aggregator.home import Federation, current_run
from aggregator.journal import Journal
from aggregator.memory import give_memory_back, give_tensors_back
from aggregator.own_noise import forget_own_key
from aggregator.page import Doors, Page
from aggregator.page_access import Access, token_in
from aggregator.page_metrics import PageMetrics
from aggregator.page_state import Shown
from aggregator.rounds import Rounds, RunStoppedError
from aggregator.seen import read_seen
from aggregator.server import Server, serving
from aggregator.stopping import PAUSED, Stopper, note_status, watched
from aggregator.traffic import PartnerSeen
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.core.errors import ConfigError, StoppedError
from fedtrain.core.files import write_atomically
from fedtrain.project.run_folder import STOPPED, RunFolder

_TELL_S = 30.0
_HERE_S = 90


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
        stack.enter_context(_ended_by_sigterm())
        journal = Journal(federation.journal, federation.service().database)
        stack.callback(journal.close)
        run_id = current_run(federation)
        opened = None
        if run_id is not None:
            opened = _opened(federation, journal, run_id, stack, console)
            _refuse_ended(federation, opened, console)
        load_tensorflow(one_thread_per_operation=True)
        trained = importlib.import_module("aggregator.trained")
        exporting = importlib.import_module("aggregator.exporting") if exports else None
        check = [exporting.check_export] if exporting is not None else []
        run = trained.prepared(federation, run_id, checks=check)
        if opened is None:
            _note_run(federation, run.run_id)
            opened = _opened(federation, journal, run.run_id, stack, console)
        stack.callback(opened.rounds.stop)
        try:
            summary: dict[str, Any] = trained.trained(
                run, opened.rounds, console=console, ended=opened.stopper.ended
            )
        except (RunStoppedError, StoppedError):
            _end_stopped(federation, opened, console)
            raise
        _tell_the_end(opened, console)
        if exporting is not None:
            release = exporting.exported(run.folder.path, console=console)
            summary["release"] = str(release)
        return summary


class _Open(NamedTuple):
    """A run behind an open port."""

    rounds: Rounds
    partners: Mapping[str, PartnerSeen]
    stopper: Stopper


def _opened(
    federation: Federation,
    journal: Journal,
    run_id: str,
    stack: ExitStack,
    console: Console,
) -> _Open:
    """The run's rounds, behind an open port until ``stack`` is left."""
    plan = federation.plan()
    rounds = Rounds(
        journal, run_id=run_id, plan_sha256=plan.sha256, folder=federation.spool
    )
    authority, service = federation.authority(), federation.service()
    served = Served(rounds, authority, plan.canonical(), federation.sequences)
    server = Server(served, address=service.address)
    partners = server.traffic.partners
    partners.update(read_seen(federation.seen))
    access = Access(token_in(federation.page_token), authority)
    shown = Shown(federation, plan, authority, rounds, partners)
    server.registry.register(PageMetrics(shown))
    page = Page(
        shown,
        Doors(service.page, access, server.registry, federation.seen),
    )
    port = stack.enter_context(serving(server, page))
    host, page_host = (a.rpartition(":")[0] for a in (service.address, service.page))
    console.print(f"Serving {run_id} on {host}:{port}", highlight=False)
    console.print(
        f"Page https://{page_host}:{page.port}/, its token is in "
        f"{federation.page_token}",
        highlight=False,
        soft_wrap=True,
    )
    stopper = stack.enter_context(watched(federation, rounds))
    return _Open(rounds, partners, stopper)


def _refuse_ended(federation: Federation, opened: _Open, console: Console) -> None:
    """Tells the partners of a run that ended before, and then the operator."""
    ending, run_id = opened.rounds.book.ending, opened.rounds.run_id
    if ending is None:
        return
    # Nobody has called this process yet: all that ever did may want to hear it.
    _tell_the_end(opened, console, everybody=True)
    folder = RunFolder(federation.runs / run_id)
    forget_own_key(federation.plan(), folder)  # who ended it may have been killed
    release = f" `fedtrain export {folder.path}` releases its model."
    raise ConfigError(
        f"The run {run_id} has ended ({ending.text})."
        f"{release if folder.weights.is_file() else ''} Another run is another "
        "federation: `fedtrain-aggregator init --home`."
    )


def _end_stopped(federation: Federation, opened: _Open, console: Console) -> None:
    """Ends the run, or pauses it, as the operator has asked by ``runs stop``."""
    request, run_id = opened.stopper.request, opened.rounds.run_id
    if request is None:
        return
    if not request.is_final:
        note_status(federation.runs, run_id, PAUSED, request.text)
        return
    opened.rounds.finish(STOPPED, request.text)
    forget_own_key(federation.plan(), RunFolder(federation.runs / run_id))
    note_status(federation.runs, run_id, STOPPED, request.text)
    _tell_the_end(opened, console)


def _tell_the_end(opened: _Open, console: Console, *, everybody: bool = False) -> None:
    """Keeps the port open until the partners that are there know of the end."""
    recently = 0 if everybody else now_ms() - 1000 * _HERE_S
    here = {
        name
        for name, seen in opened.partners.items()
        if seen.last_seen_unix_ms >= recently
    }
    give_up = time.monotonic() + _TELL_S
    if not here <= opened.rounds.told_the_end:
        console.print(
            f"Telling partners that the run has ended ({_TELL_S:g} s at most)"
        )
    while not here <= opened.rounds.told_the_end and time.monotonic() < give_up:
        time.sleep(0.1)


def _note_run(federation: Federation, run_id: str) -> None:
    write_atomically(federation.path / "run.json", json.dumps({"run_id": run_id}))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: the port drains, and all is resumable."""

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
