"""The training thread's half of the rounds: it opens them, waits, and closes them."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from aggregator.events import Draft, now_ms
from aggregator.journal import JournalUnavailableError
from aggregator.round_call import Collected, RoundCall
from aggregator.round_state import RoundState, specs_to_json
from aggregator.run_book import RunBook
from aggregator.secure_collector import (
    Hands,
    SecureCollector,
    SecureDesk,
    SessionFailedError,
    is_free,
)
from aggregator.secure_terms import SecureTerms
from aggregator.spool import Spool, SpooledFile, is_intact
from fedtrain.core.errors import FedtrainError, JournalError, TooFewClientsError
from fedtrain.wire.arrays import ArraySpec, chunks

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 600.0
_POLL_S = 1.0
_DONE = frozenset({"closed", "charged", "committed"})
_Stored = TypeVar("_Stored")


class RunStoppedError(FedtrainError):
    """The aggregator is shutting down; the run can be resumed."""

    exit_code = 130


class Collector:
    """Collects one round at a time.

    Args:
      book: The run's rounds.
      spool: Its files.
      desk: Where calls find the open session of secure aggregation.
      clock: Seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        book: RunBook,
        spool: Spool,
        desk: SecureDesk,
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._spool = spool
        self._clock = clock
        self._is_stopping = False
        hands = Hands(self.record, self.stored, self._check_going_on, clock)
        self._secure = SecureCollector(book, spool, desk, hands)

    def collect(self, call: RoundCall) -> Collected:
        """See ``Rounds.collect``."""
        call.check(self._book.run_id)
        self._check_going_on()  # a round planned now would undo an ending
        broadcast = self._broadcast(call)
        state = self._begun(call, broadcast)
        if call.secure is not None:
            state = self._summed(call, call.secure, broadcast, state)
        elif state.stage == "collecting":
            state = self._awaited(call)
        files = self._spool.files_of(state)
        names = [name for name in ("sum", *state.survivors) if name in files]
        return Collected(
            attempt=state.attempt,
            accepted=state.survivors,
            lost=state.lost,
            paths=tuple(files[name] for name in names),
            contribution=state.contribution,
        )

    def note(self, round_number: int, kind: str, body: Mapping[str, Any]) -> None:
        """Records what the training thread has done with a training round.

        Raises:
          JournalError: If the round is not that far.
        """

        def drafts() -> list[Draft]:
            state = self._book.find("train", round_number)
            if state is None:
                raise JournalError(f"Round {round_number} was not collected yet.")
            return [self._book.draft(state, kind, body)]

        self.record(drafts)

    def record(self, drafts: Callable[[], Sequence[Draft]]) -> None:
        """Records what ``drafts`` gives; a full disk is waited for, ten minutes.

        Args:
          drafts: Asked again before every try, for the state may have changed.
        """
        give_up = self._clock() + _PATIENCE_S
        with self._book.changed:
            while True:
                try:
                    self._book.record(drafts())
                except JournalUnavailableError:
                    if self._is_stopping or self._clock() > give_up:
                        raise
                    _LOG.warning("Waiting for the journal", exc_info=True)
                    self._book.changed.wait(_POLL_S)
                else:
                    return

    def stored(self, what: str, store: Callable[[], _Stored]) -> _Stored:
        """What ``store`` gives; a full disk is waited for, ten minutes.

        Args:
          what: Is written, for people.
          store: Writes a file anew with every call.

        Raises:
          JournalError: If the disk stays full.
        """
        give_up = self._clock() + _PATIENCE_S
        while True:
            try:
                return store()
            except OSError as error:
                self._check_going_on()
                if self._clock() > give_up:
                    raise JournalError(
                        f"The {what} cannot be written: {error}. Make room on the "
                        "disk of the aggregator's folder, then start again."
                    ) from error
                _LOG.warning("Waiting for the disk", exc_info=True)
            with self._book.changed:
                self._book.changed.wait(_POLL_S)

    @property
    def guilty(self) -> frozenset[str]:
        """See ``Rounds.guilty``."""
        return self._secure.guilty

    def stop(self) -> None:
        """See ``Rounds.stop``."""
        self._is_stopping = True
        with self._book.changed:
            self._book.changed.notify_all()

    def _broadcast(self, call: RoundCall) -> SpooledFile:
        specs = [ArraySpec.of(array) for array in call.broadcast]
        return self.stored(
            "broadcast",
            lambda: self._spool.store_broadcast(chunks(specs, call.broadcast)),
        )

    def _begun(self, call: RoundCall, broadcast: SpooledFile) -> RoundState:
        found = self._book.find(call.kind, call.round_number)
        damaged = () if found is None else self._damaged(found)

        def goes_on(old: RoundState) -> bool:
            is_lost = bool(damaged) and old.stage in _DONE
            # Its session ended with the process that had it in memory.
            is_lost |= old.is_secure and not is_free(old)
            return _is_same(old, call, broadcast) and not is_lost

        if found is None or found.stage == "aborted" or not goes_on(found):
            # Only this thread plans: no other can take the number meanwhile.
            call.before_attempt(self._attempt(call))

        def drafts() -> list[Draft]:
            old = self._book.find(call.kind, call.round_number)
            if old is None or old.stage == "aborted":
                return self._planned(call, broadcast)
            if not goes_on(old):
                why = {"why": _why_not(old, call)}
                aborted = self._book.draft(old, "aborted", why)
                return [aborted, *self._planned(call, broadcast)]
            return self._resumed(old, call, damaged)

        self.record(drafts)
        return self._state(call)

    def _attempt(self, call: RoundCall) -> int:
        """The number of an attempt that begins.

        Raises:
          TooFewClientsError: If the aggregator above asks for one that was made.
        """
        following = self._book.next_attempt(call.kind, call.round_number)
        if call.attempt is None:
            return following
        if call.attempt < following:
            raise TooFewClientsError(
                f"Attempt {call.attempt} at round {call.round_number} was made here and"
                " gave no sum. It is not made again: the next one is another."
            )
        return call.attempt

    def _resumed(
        self, state: RoundState, call: RoundCall, damaged: Sequence[str]
    ) -> list[Draft]:
        if state.stage in _DONE or state.is_secure:
            return []
        why = "the disk has damaged its contribution"
        lost = [
            self._book.draft(state, "lost", {"client": client, "why": why})
            for client in damaged
        ]
        return [self._collecting(state, call, 1), *lost]

    def _planned(self, call: RoundCall, broadcast: SpooledFile) -> list[Draft]:
        state = RoundState(
            run_id=call.run_id,
            round_number=call.round_number,
            attempt=self._attempt(call),
            kind=call.kind,
            stage="planned",
            cohort=call.cohort,
            contribution=tuple(call.contribution),
        )
        specs = specs_to_json(state.contribution)
        secure = {"secure": True} if call.secure is not None else {}
        planned = {"cohort": list(call.cohort), "contribution": specs, **secure}
        configured = {
            "broadcast_bytes": broadcast.num_bytes,
            "broadcast_sha256": broadcast.sha256,
            "info": dict(call.info),
        }
        opened = [] if secure else [self._collecting(state, call, 1)]
        return [
            self._book.draft(state, "planned", planned),
            self._book.draft(state, "configured", configured),
            *opened,
        ]

    def _collecting(self, state: RoundState, call: RoundCall, number: int) -> Draft:
        body = {
            "report_goal": call.report_goal,
            "least_reports": call.least_reports,
            "deadline_unix_ms": now_ms() + int(1000 * call.deadline_s),
            "num_deadlines": number,
        }
        return self._book.draft(state, "collecting", body)

    def _summed(
        self,
        call: RoundCall,
        terms: SecureTerms,
        broadcast: SpooledFile,
        state: RoundState,
    ) -> RoundState:
        """Sessions, one after the other, until one of them gives the sum."""
        why = ""
        for number in range(call.max_deadlines):
            if number:
                state = self._begun(call, broadcast)
            if state.stage in _DONE:
                return state
            try:
                self._secure.collect(call, terms, state)
                return self._state(call)
            except SessionFailedError as error:
                why = str(error)
                if call.attempt is not None and not is_free(self._state(call)):
                    raise TooFewClientsError(
                        f"Attempt {call.attempt} at round {call.round_number} gave no "
                        f"sum, and is made once: {why}"
                    ) from error
        raise TooFewClientsError(
            f"Round {call.round_number} gave no sum in {call.max_deadlines} sessions. "
            f"The last one: {why} Start again to go on."
        )

    def _awaited(self, call: RoundCall) -> RoundState:
        for number in range(1, call.max_deadlines + 1):
            if number > 1:
                self._extend(call, number)
            if self._is_ready(call, self._clock() + call.deadline_s):
                return self._closed(call)
        if call.kind == "evaluate":
            self._give_up(call, "too few answers; this evaluation is left out")
        raise _too_few(self._state(call), call)

    def _extend(self, call: RoundCall, number: int) -> None:
        self.record(lambda: [self._collecting(self._state(call), call, number)])

    def _is_ready(self, call: RoundCall, deadline: float) -> bool:
        """Waits; whether the round may be closed now."""
        with self._book.changed:
            while True:
                self._check_going_on()
                state = self._state(call)
                left_s = deadline - self._clock()
                if state.is_full or left_s <= 0:
                    return state.is_full or state.has_enough
                if state.is_hopeless:
                    self._give_up(call, "too many are lost")
                self._book.changed.wait(min(left_s, _POLL_S))

    def _check_going_on(self) -> None:
        if self._is_stopping:
            raise RunStoppedError("The aggregator is stopping; start again to go on.")
        if self._book.failure is not None:
            raise self._book.failure

    def _give_up(self, call: RoundCall, why: str) -> None:
        # Those who are lost stay lost in this attempt: the next one asks all again.
        self.record(
            lambda: [self._book.draft(self._state(call), "aborted", {"why": why})]
        )
        raise _too_few(self._state(call), call)

    def _closed(self, call: RoundCall) -> RoundState:
        def drafts() -> list[Draft]:
            state = self._state(call)
            if len(state.accepted) >= state.report_goal:
                why = "not needed: the report goal was reached without it"
            else:
                why = f"no answer within {state.num_deadlines} x {call.deadline_s:g} s"
            lost = {**state.lost, **dict.fromkeys(state.missing, why)}
            body = {"accepted": list(state.survivors), "lost": lost}
            return [self._book.draft(state, "closed", body)]

        self.record(drafts)
        return self._state(call)

    def _state(self, call: RoundCall) -> RoundState:
        state = self._book.find(call.kind, call.round_number)
        if state is None:
            raise JournalError(f"Round {call.round_number} is not in the journal.")
        return state

    def _damaged(self, state: RoundState) -> tuple[str, ...]:
        files = self._spool.files_of(state)
        return tuple(name for name in files if not is_intact(*files[name]))


def _is_same(state: RoundState, call: RoundCall, broadcast: SpooledFile) -> bool:
    return (
        state.cohort == call.cohort
        and state.is_secure == (call.secure is not None)
        and call.attempt in (None, state.attempt)
        and state.contribution == tuple(call.contribution)
        and state.broadcast_sha256 == broadcast.sha256
        and state.info == json.loads(json.dumps(dict(call.info)))
    )


def _why_not(state: RoundState, call: RoundCall) -> str:
    if call.attempt not in (None, state.attempt):
        return "the aggregator above has begun another attempt"
    if state.is_secure and state.stage not in _DONE:
        return "the aggregator was started again in the middle of secure aggregation"
    return "other clients or weights, or a damaged contribution"


def _too_few(state: RoundState, call: RoundCall) -> TooFewClientsError:
    lost = "".join(f" {client} is lost: {why}." for client, why in state.lost.items())
    return TooFewClientsError(
        f"Round {state.round_number} has {len(state.accepted)} of at least "
        f"{state.least_reports} contributions after {state.num_deadlines} deadlines of "
        f"{call.deadline_s:g} s. Missing: {', '.join(state.missing) or 'nobody'}.{lost}"
        " Start again to go on with what came, or lower service.least_reports."
    )
