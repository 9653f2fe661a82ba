"""Serving a federation: the port first, then training, and everything resumable."""

import importlib
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console

from aggregator.calls import Served
from aggregator.home import Federation, current_run
from aggregator.journal import Journal
from aggregator.rounds import Rounds
from aggregator.server import Server, serving
from fedtrain.cli.quiet import load_tensorflow
from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically


def serve(federation: Federation, *, console: Console) -> dict[str, Any]:
    """Runs the federation's rounds to their end; goes on where it was stopped.

    A run that has begun answers its partners at once; TensorFlow is loaded after.

    Args:
      federation: From ``init``.
      console: Where progress is shown.

    Returns:
      The run's summary.

    Raises:
      TooFewClientsError: If too few partners answered; the run can be resumed.
      ConfigError: If the project file no longer gives the plan that was approved.
    """
    with ExitStack() as stack:
        stack.enter_context(_ended_by_sigterm())
        journal = Journal(federation.journal, federation.service().database)
        stack.callback(journal.close)
        run_id = current_run(federation)
        rounds = None
        if run_id is not None:
            rounds = _opened(federation, journal, run_id, stack, console)
        load_tensorflow(one_thread_per_operation=True)
        trained = importlib.import_module("aggregator.trained")
        run = trained.prepared(federation, run_id)
        if rounds is None:
            _note_run(federation, run.run_id)
            rounds = _opened(federation, journal, run.run_id, stack, console)
        stack.callback(rounds.stop)
        summary: dict[str, Any] = trained.trained(run, rounds, console=console)
        return summary


def _opened(
    federation: Federation,
    journal: Journal,
    run_id: str,
    stack: ExitStack,
    console: Console,
) -> Rounds:
    """The run's rounds, behind an open port until ``stack`` is left."""
    plan = federation.plan()
    rounds = Rounds(
        journal, run_id=run_id, plan_sha256=plan.sha256, folder=federation.spool
    )
    if rounds.book.ending is not None:
        raise ConfigError(
            f"The run {run_id} has ended ({rounds.book.ending.text}). `fedtrain export "
            f"{federation.runs / run_id}` releases its model; another run is another "
            "federation: `fedtrain-aggregator init --home`."
        )
    served = Served(rounds, federation.authority(), plan.canonical())
    server = Server(served, address=federation.service().address)
    port = stack.enter_context(serving(server))
    host = federation.service().address.rpartition(":")[0]
    console.print(f"Serving {run_id} on {host}:{port}", highlight=False)
    return rounds


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
