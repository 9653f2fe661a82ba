"""What a regional aggregator contributes above: the sum that its region has opened."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aggregator.round_call import RoundCall
from aggregator.rounds import Rounds
from aggregator.secure_terms import SecureTerms
from clients.work import Cost, NoAnswerError, RoundTask
from fedtrain.core.errors import ConfigError, LedgerError, TooFewClientsError
from fedtrain.project.config import ServiceSection
from fedtrain.wire.arrays import Array
from fedtrain.wire.plan import Plan

_MOST_DOUBLINGS = 3  # the aggregator above waits longer, and does not give up


class RegionalSum:
    """``Work`` that is a round with the region's own partners.

    Nothing is trained, clipped or noised here, and nothing is charged: each partner
    does so for its contribution. Round and attempt are those of the aggregator above,
    and each attempt is made once, so a partner is never asked for two sums of one.

    Args:
      rounds: With the region's partners.
      plan: That all levels have approved.
      secure: The terms of the region's sessions.
      service: How long is waited.
      clock: Seconds of a clock that only goes forward.

    Attributes:
      kept: See ``Work``: always empty.
      num_examples: See ``Work``: rows are the partners'.
      has_ended: Whether the aggregator above has ended the run.
    """

    kept = b""
    num_examples = None

    def __init__(
        self,
        rounds: Rounds,
        *,
        plan: Plan,
        secure: SecureTerms,
        service: ServiceSection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rounds = rounds
        self._plan = plan
        self._secure = secure
        self._service = service
        self._clock = clock
        self._failures = 0
        self._rests_until = clock()
        self.has_ended = False

    def cost(self, task: RoundTask) -> Cost | None:
        """Nothing: the partners have paid before the region opens a sum.

        Raises:
          ConfigError: If the task is of another run than this region has begun.
        """
        if task.run_id != self._rounds.run_id:
            raise ConfigError(
                f"The run {task.run_id} is served above, and this region has begun "
                f"{self._rounds.run_id}. Another run is another region: "
                "`fedtrain-aggregator region init --home`."
            )
        return None

    def compute(self, task: RoundTask, broadcast: Sequence[Array]) -> list[Array]:
        """The region's sum modulo 2^32, of this attempt.

        Raises:
          NoAnswerError: If too few partners answered, or it was asked for before.
          RunStoppedError: If this regional aggregator is being stopped.
        """
        self._note_committed(task)
        try:
            collected = self._rounds.collect(self._call(task, broadcast))
        except TooFewClientsError as error:
            self._note_failed()
            raise NoAnswerError(f"This region has no sum. {error}") from error
        self._failures = 0
        return collected.total()

    def rests(self) -> str:
        """Why no session is to be joined now; empty if one may be.

        Each attempt that fails here costs every partner of all regions a charge.
        """
        left_s = self._rests_until - self._clock()
        if left_s <= 0:
            return ""
        return (
            f"{self._failures} attempts one after the other gave no sum; the next one "
            f"in {left_s:.0f} s"
        )

    def forget(self) -> None:
        """Hears that the run has ended: no noise was made here."""
        self.has_ended = True

    def _call(self, task: RoundTask, broadcast: Sequence[Array]) -> RoundCall:
        names = tuple(sorted(self._secure.keys))
        return RoundCall(
            run_id=task.run_id,
            round_number=task.round_number,
            kind=task.kind,
            cohort=names,
            report_goal=len(names),
            least_reports=self._secure.parameters.threshold,
            deadline_s=self._service.deadline_s,
            max_deadlines=self._service.max_deadlines,
            broadcast=broadcast,
            contribution=self._plan.contribution,
            info=task.info,
            secure=self._secure,
            attempt=task.attempt,
        )

    def _note_failed(self) -> None:
        """From the second failure in a row on it rests, twice as long each time."""
        self._failures += 1
        if self._failures > 1:
            doublings = min(self._failures - 2, _MOST_DOUBLINGS)
            self._rests_until = self._clock() + self._service.deadline_s * 2**doublings

    def _note_committed(self, task: RoundTask) -> None:
        """The broadcast shows that the round before is done with: its files may go."""
        number = task.round_number - 1
        before = self._rounds.book.find("train", number)
        if before is not None and before.stage == "closed":
            self._rounds.committed(number, task.broadcast_sha256)


class NoRows:
    """The odometer of who has no rows: nothing is charged to it."""

    def check(self, task: RoundTask, cost: Cost, *, max_epsilon: float) -> None:
        """Refuses every cost."""
        del cost, max_epsilon
        raise LedgerError(f"{task.name} has a cost, and there are no rows to charge.")

    charge = check

    def spent(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def head(self) -> dict[str, Any]:
        """Of no ledger."""
        return {"file": "", "length": 0, "hash": ""}

    def expect(self, head: Mapping[str, Any]) -> None:
        """There is none to expect."""
