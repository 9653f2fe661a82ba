"""The training thread's half of secure aggregation: it opens, awaits and closes steps.

A session that fails before masked contributions were asked for has cost nobody
anything, and is begun anew in the same attempt. Later the attempt is lost: the next
one has fresh keys, and is charged by itself.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aggregator.events import Draft, now_ms
from aggregator.round_call import RoundCall
from aggregator.round_state import FIRST_STEP, RoundState
from aggregator.run_book import RunBook
from aggregator.secure_steps import SecureSteps
from aggregator.secure_terms import SecureTerms
from aggregator.spool import Spool
from fedtrain.core.errors import FedtrainError, TooFewClientsError
from fedtrain.secagg.blame import BreachError
from fedtrain.secagg.masks import content
from fedtrain.secagg.server import LateError, Step

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0
_STEPS = (Step.KEYS, Step.SHARES, Step.INPUTS, Step.CONSISTENCY, Step.UNMASK)
# Journal names of the steps in which no contribution can have left a client.
_FREE_STEPS = frozenset({"", FIRST_STEP, Step.SHARES.name})


class SessionFailedError(FedtrainError):
    """A session gave no sum; the round may be tried again."""


class SecureDesk:
    """Where calls find the session that is open.

    Attributes:
      steps: Of the session; None where none is open in this process.
    """

    def __init__(self) -> None:
        self.steps: SecureSteps | None = None

    def of(self, state: RoundState) -> SecureSteps | None:
        """The open session, if it is of this attempt."""
        steps = self.steps
        if steps is None:
            return None
        found = (steps.roster.round_number, steps.roster.attempt)
        return steps if found == (state.round_number, state.attempt) else None


class Hands(NamedTuple):
    """What the collector of plain rounds lends.

    Attributes:
      record: Records what a function drafts; waits for a full disk.
      stored: Writes a file of that name and function; waits for a full disk.
      check_going_on: Raises where the run is being stopped.
      clock: Seconds of a clock that only goes forward.
    """

    record: Callable[[Callable[[], Sequence[Draft]]], None]
    stored: Callable[[str, Callable[[], str]], str]
    check_going_on: Callable[[], None]
    clock: Callable[[], float]


def is_free(state: RoundState) -> bool:
    """Whether no contribution to this attempt can have left a client."""
    return state.is_secure and state.step in _FREE_STEPS


class SecureCollector:
    """Carries out sessions, one at a time.

    Args:
      book: The run's rounds.
      spool: Its files.
      desk: Where calls find the open session.
      hands: Of the collector of plain rounds.

    Attributes:
      guilty: Who was proven, in this process, to have dealt wrong shares: left out.
    """

    def __init__(
        self, book: RunBook, spool: Spool, desk: SecureDesk, hands: Hands
    ) -> None:
        self._book = book
        self._spool = spool
        self._desk = desk
        self._hands = hands
        self.guilty: frozenset[str] = frozenset()

    def collect(self, call: RoundCall, terms: SecureTerms, state: RoundState) -> None:
        """One session of the attempt ``state``, until the round is closed.

        Raises:
          SessionFailedError: If it gave no sum. Unless nothing had left a client, the
            attempt is aborted.
          TooFewClientsError: If too few sent keys within all deadlines.
          RunStoppedError: If the aggregator is stopping.
        """
        roster = terms.roster(state, without=self.guilty)
        steps = SecureSteps(roster, terms.operator_key)
        self._desk.steps = steps
        try:
            for step in _STEPS:
                self._await_step(call, steps, step)
                self._end_step(call, steps, step)
            self._close(call, steps)
        finally:
            self._desk.steps = None
            self.guilty |= steps.guilty
            for blame in steps.blames:
                _LOG.warning("round %d: %s", call.round_number + 1, BreachError(blame))

    def _await_step(self, call: RoundCall, steps: SecureSteps, step: Step) -> None:
        """Until all who may answer have; keys are waited for longer than the rest.

        Where too many have broken the protocol nothing is waited for: the session
        fails, and the next one is without them, or has no roster.
        """
        is_first = step is Step.KEYS
        for number in range(1, (call.max_deadlines if is_first else 1) + 1):
            # First the journal, then the clients: what may have left is known.
            deadline = self._noted(call, steps, number)
            if number == 1:
                steps.publish()
                self._book.tell()
            self._wait(call, steps, deadline)
            if not is_first or steps.is_hopeless or self._may_close(call, steps):
                return
        raise TooFewClientsError(
            f"Round {call.round_number} has the keys of {len(steps.open.answered)} "
            f"partners after {call.max_deadlines} deadlines of {call.deadline_s:g} s; "
            f"secure aggregation needs {steps.roster.parameters.threshold}. Missing: "
            f"{', '.join(steps.awaited)}. Start again to go on."
        )

    def _noted(self, call: RoundCall, steps: SecureSteps, number: int) -> float:
        """Records that a step is waited for; the end of the wait, by the clock."""
        deadline = 0.0

        def drafts() -> list[Draft]:
            nonlocal deadline  # asked again while the disk is full
            deadline = self._hands.clock() + call.deadline_s
            return self._openings(call, steps, number)

        self._hands.record(drafts)
        return deadline

    def _wait(self, call: RoundCall, steps: SecureSteps, deadline: float) -> None:
        goal = call.report_goal if steps.open.step is Step.KEYS else len(call.cohort)
        with self._book.changed:
            while True:
                self._hands.check_going_on()
                left_s = deadline - self._hands.clock()
                is_over = not steps.awaited or len(steps.open.answered) >= goal
                if is_over or steps.is_hopeless or left_s <= 0:
                    return
                self._book.changed.wait(min(left_s, _POLL_S))

    def _may_close(self, call: RoundCall, steps: SecureSteps) -> bool:
        enough = max(steps.roster.parameters.threshold, call.least_reports)
        return len(steps.open.answered) >= enough

    def _end_step(self, call: RoundCall, steps: SecureSteps, step: Step) -> None:
        late = steps.awaited
        try:
            steps.close()
        except (TooFewClientsError, BreachError, LateError) as error:
            self._fail(call, step, str(error))
        if step <= Step.INPUTS:
            self._hands.record(lambda: self._losses(call, steps, step, late))

    def _fail(self, call: RoundCall, step: Step, why: str) -> None:
        _LOG.warning("round %d: %s", call.round_number + 1, why)
        if step.name not in _FREE_STEPS:
            state = self._state(call)
            aborted = self._book.draft(state, "aborted", {"why": why})
            self._hands.record(lambda: [aborted])
        raise SessionFailedError(why)

    def _losses(
        self, call: RoundCall, steps: SecureSteps, step: Step, late: Sequence[str]
    ) -> list[Draft]:
        """Who is out of the session from ``step`` on; and who is in the sum."""
        state = self._state(call)
        why = {
            **dict.fromkeys(state.cohort, "it is not in the session"),
            **dict.fromkeys(steps.roster.client_ids, "it left the session"),
            **dict.fromkeys(
                late,
                f"no answer to step {step.name} of secure aggregation within "
                f"{call.deadline_s:g} s",
            ),
            **steps.failed,
        }
        drafts = [
            self._book.draft(state, "lost", {"client": name, "why": why[name]})
            for name in state.missing
            if name not in steps.upcoming.messages
        ]
        return [*drafts, *self._unnoted(state, steps, step)]

    def _unnoted(
        self, state: RoundState, steps: SecureSteps, step: Step
    ) -> list[Draft]:
        """Contributions in the sum whose line in the journal did not come in time."""
        if step is not Step.INPUTS:
            return []
        return [
            self._book.draft(state, "accepted", steps.notes[name])
            for name in steps.survivors
            if name not in state.accepted
        ]

    def _close(self, call: RoundCall, steps: SecureSteps) -> None:
        state, total = self._state(call), steps.total
        if total is None:
            raise SessionFailedError("The session was not opened.")
        sha256 = self._hands.stored(
            "sum", lambda: self._spool.store_sum(state, content(total))
        )
        body = {
            "accepted": list(state.survivors),
            "lost": dict(state.lost),
            "sum": sha256,
        }
        self._hands.record(lambda: [self._book.draft(state, "closed", body)])

    def _openings(
        self, call: RoundCall, steps: SecureSteps, number: int
    ) -> list[Draft]:
        body = {
            "report_goal": len(call.cohort),
            "least_reports": steps.roster.parameters.threshold,
            "deadline_unix_ms": now_ms() + int(1000 * call.deadline_s),
            "num_deadlines": number,
            "step": steps.upcoming.step.name,
        }
        return [self._book.draft(self._state(call), "collecting", body)]

    def _state(self, call: RoundCall) -> RoundState:
        state = self._book.find(call.kind, call.round_number)
        if state is None:
            raise SessionFailedError(f"Round {call.round_number} is not planned.")
        return state
