"""The rounds of one run: where the training thread and the clients' calls meet.

A contribution counts once it lies on the disk and the journal says so, and only then is
it acknowledged. Deadlines are measured by a clock that cannot be set; after a restart
they begin anew, and what was accepted is kept.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aggregator.collector import Collector, RunStoppedError
from aggregator.events import Draft, now_ms
from aggregator.journal import Journal
from aggregator.reception import Activity, Reception
from aggregator.round_call import Collected, RoundCall
from aggregator.round_status import run_status
from aggregator.run_book import RunBook
from aggregator.secure_collector import SecureDesk
from aggregator.secure_reception import MessageUpload
from aggregator.spool import Spool
from aggregator.uploads import Upload
from fedtrain.core import validate
from fedtrain.wire import messages_pb2 as pb

__all__ = ["Activity", "Collected", "RoundCall", "Rounds", "RunStoppedError"]


class Rounds:
    """Rounds of one run, one at a time; its methods may be called from any thread.

    Args:
      journal: Where what happens is written, and read from after a restart.
      run_id: The run's name.
      plan_sha256: Of the plan that clients approved, in hexadecimal.
      folder: For broadcasts and contributions; made if needed.
      clock: Seconds of a clock that only goes forward.

    Attributes:
      run_id: The run's name.
      plan_sha256: Of the plan.
      book: What the journal tells of the run.

    Raises:
      JournalError: If the journal's events cannot be understood.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        run_id: str,
        plan_sha256: str,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run_id = run_id
        self.plan_sha256 = plan_sha256
        self.book = RunBook(journal, run_id)
        self._spool = Spool(folder)
        self._desk = SecureDesk()
        self._collector = Collector(self.book, self._spool, self._desk, clock)
        self._reception = Reception(self.book, self._spool, plan_sha256, self._desk)

    def collect(self, call: RoundCall) -> Collected:
        """Asks the cohort, and waits until enough contributions are in.

        Called again after a restart with the same call it goes on with what was
        accepted. If cohort, broadcast or info differ, the next attempt begins and all
        are asked anew.

        Raises:
          TooFewClientsError: If too few are in after all deadlines; what came is kept.
          RunStoppedError: If ``stop`` was called meanwhile.
          JournalError: If the journal cannot go on.
        """
        return self._collector.collect(call)

    def charged(self, round_number: int, entry: Mapping[str, Any]) -> None:
        """Notes that the ledger holds the charge for a round, as ``entry`` says.

        A run that goes back by one checkpoint finds its newest round committed: the
        charge was noted then, and nobody is asked again.
        """
        found = self.book.find("train", round_number)
        if found is None or found.stage != "committed":
            self._collector.note(round_number, "charged", {"entry": dict(entry)})

    def committed(self, round_number: int, state_sha256: str) -> None:
        """Notes that the checkpoint after a round is on the disk.

        The files of earlier rounds are removed. Those of this one stay until the next
        commit, as the checkpoint before it does: a run that goes back by one checkpoint
        asks nobody again.
        """
        found = self.book.find("train", round_number)
        # A checkpoint that was gone back to is of a round that was committed before.
        is_past = found is None and round_number < self.book.newest
        if not is_past and (found is None or found.state_sha256 != state_sha256):
            body = {"state_sha256": state_sha256}
            self._collector.note(round_number, "committed", body)
        self._spool.keep_only(self.book.all())

    def finish(self, status: str, text: str) -> None:
        """Tells all clients that the run is "finished" or "stopped", and why."""
        validate.one_of({"finished", "stopped"}, status=status)
        body = {"status": status, "text": text}
        draft = Draft(self.run_id, None, 0, "finished", body, now_ms())
        self._collector.record(lambda: [draft])

    @property
    def told_the_end(self) -> frozenset[str]:
        """The clients that were told, by this process, that the run has ended."""
        return frozenset(self._reception.told_the_end)

    @property
    def awaited(self) -> tuple[str, ...]:
        """Clients that the open round, or its step, waits for."""
        steps, current = self._desk.steps, self.book.current
        if steps is not None:
            return steps.awaited
        return () if current is None or current.is_secure else current.missing

    @property
    def guilty(self) -> frozenset[str]:
        """Clients that no further session of this process is held with."""
        return self._collector.guilty

    def stop(self) -> None:
        """Ends a ``collect`` that waits: the aggregator is shutting down."""
        self._collector.stop()

    def task_for(self, client_id: str) -> pb.Task:
        """What ``client_id`` is to do now; never waits for anything."""
        return self._reception.task_for(client_id)

    def listen(self, listener: Callable[[], None]) -> None:
        """Has ``listener`` called, by any thread, when there may be other tasks."""
        self.book.listeners.append(listener)

    def broadcast_for(
        self, client_id: str, round_number: int, request: pb.FetchRequest
    ) -> Path:
        """The file with what the clients of an open round receive.

        Raises:
          RefusedError: If the round is not open, or not for this client; BUSY if the
            disk has lost or damaged the file since, until it is written again.
        """
        return self._reception.broadcast_for(client_id, round_number, request)

    def submission(
        self, request: pb.SignedRequest, header: pb.SubmitHeader
    ) -> Upload | MessageUpload:
        """Takes a contribution's bytes, if it would be accepted.

        Args:
          request: Verified; its client, round and sequence are used.
          header: Its body.

        Raises:
          RefusedError: With the code for the client.
        """
        return self._reception.submission(request, header)

    def status(self) -> dict[str, Any]:
        """Who is missing, since when, and when the round closes; plain values."""
        awaited = self.awaited if self._desk.steps is not None else None
        return run_status(self.book, self._reception.activity, awaited)
