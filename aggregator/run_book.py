"""The rounds of one run as its journal tells them; the one place that adds to it."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aggregator.event_words import in_words
from aggregator.events import Draft, now_ms
from aggregator.journal import Journal, JournalUnavailableError
from aggregator.round_state import Kind, RoundState, applied
from fedtrain.core.errors import JournalError

Key = tuple[Kind, int]
_MOST_RECENT = 500
_QUIET = frozenset({"planned", "configured", "charged", "committed"})
_TOLD = ("task", "client", "why", "num_deadlines", "status", "text")
_LOG = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
      status: "finished" or "stopped".
      text: For people.
    """

    status: str
    text: str


class RunBook:
    """Rounds by kind and number: the newest, and those a checkpoint may go back to.

    Readers on other threads look at attributes, which are replaced and never changed.
    Whoever records holds ``changed``.

    Args:
      journal: Its events of ``run_id`` are read once, here.
      run_id: The run's name.

    Attributes:
      current: The round that is collecting; None between rounds.
      ending: How the run ended; None while it goes on.
      failure: Why nothing can be recorded any more.
      newest: Greatest number of a round; -1 before the first.
      sequences: Greatest sequence of an accepted request, by client.
      participations: Number of sums that a client's contribution is in, by client.
      counts: Events of each kind that this process recorded.
      recent: The last events of the run, the oldest first.
      changed: Notified after every record.
    """

    def __init__(self, journal: Journal, run_id: str) -> None:
        self.run_id = run_id
        self.changed = threading.Condition()
        self.current: RoundState | None = None
        self.ending: Ending | None = None
        self.failure: JournalError | None = None
        self.newest = -1
        self.sequences: dict[str, int] = {}
        self.participations: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.recent: tuple[Draft, ...] = ()
        self.listeners: list[Callable[[], None]] = []
        self._journal = journal
        self._rounds: dict[Key, RoundState] = {}
        self._attempts: dict[Key, int] = {}
        recent: deque[Draft] = deque(maxlen=_MOST_RECENT)
        for event in journal.events():
            if event.draft.run_id == run_id:
                self._take_in(event.draft, _after(self._rounds, event.draft))
                recent.append(event.draft)
        self.recent = tuple(recent)

    def find(self, kind: Kind, round_number: int) -> RoundState | None:
        """The newest attempt at a round; None if there is none, or it is long past."""
        return self._rounds.get((kind, round_number))

    def next_attempt(self, kind: Kind, round_number: int) -> int:
        """The first number that no attempt at a round had, long past ones included."""
        return self._attempts.get((kind, round_number), -1) + 1

    def all(self) -> tuple[RoundState, ...]:
        """The rounds that are known, by number."""
        return tuple(sorted(self._rounds.values(), key=lambda s: s.round_number))

    def draft(self, state: RoundState, kind: str, body: Mapping[str, Any]) -> Draft:
        """What happens now to the round of ``state``."""
        full = {"task": state.kind, **body}
        return Draft(
            self.run_id, state.round_number, state.attempt, kind, full, now_ms()
        )

    def record(self, drafts: Sequence[Draft]) -> None:
        """Journals ``drafts``, then takes them in: all of them or none.

        Raises:
          JournalUnavailableError: If the journal does not take them now.
          JournalError: If they cannot follow, or the journal cannot go on.
        """
        if not drafts:
            return
        states = dict(self._rounds)
        followed = []
        for draft in drafts:
            state = _after(states, draft)
            if state is not None:
                states[_key(state)] = state
            followed.append((draft, state))
        try:
            self._append(drafts)
            self._take_all_in(followed)
        except JournalError:
            raise
        except BaseException:
            # Ctrl-C in the middle: the journal may hold what is not known here, and an
            # event more could be one that cannot follow.
            self.failure = self.failure or JournalError(
                "The journal was being written when the aggregator was interrupted. "
                "Start it again: the journal is read anew."
            )
            raise

    def _take_all_in(self, followed: Sequence[tuple[Draft, RoundState | None]]) -> None:
        before = self._public()
        for draft, state in followed:
            self._take_in(draft, state)
            self.counts[draft.kind] += 1
            level = logging.DEBUG if draft.kind in _QUIET else logging.INFO
            _LOG.log(level, "%s", _sentence(draft), extra={"event": _logged(draft)})
        drafts = [draft for draft, _ in followed]
        self.recent = (*self.recent, *drafts)[-_MOST_RECENT:]
        self.changed.notify_all()
        if self._public() != before:
            self.tell()

    def tell(self) -> None:
        """Calls the listeners: what clients are told may be something else now."""
        for listener in self.listeners:
            listener()

    def _append(self, drafts: Sequence[Draft]) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            self._journal.append(drafts)
        except JournalUnavailableError:
            raise
        except JournalError as error:
            self.failure = error
            self.changed.notify_all()
            raise

    def _take_in(self, draft: Draft, state: RoundState | None) -> None:
        if state is None:
            self._take_in_ending(draft)
            return
        key = _key(state)
        self._rounds = {**self._rounds, key: state}
        self.newest = max(self.newest, state.round_number)
        if state.stage == "collecting":
            self.current = state
        elif self.current is not None and key == _key(self.current):
            self.current = None
        if draft.kind == "planned":
            self.ending = None
            self._attempts[key] = state.attempt
        if draft.kind == "accepted":
            self._take_in_sequence(draft.body)
        if draft.kind == "closed":
            self.participations.update(state.survivors)
        if draft.kind == "committed":
            self._forget_before(state.round_number)

    def _take_in_ending(self, draft: Draft) -> None:
        if draft.kind == "finished":
            self.ending = Ending(draft.body["status"], draft.body["text"])

    def _take_in_sequence(self, body: Mapping[str, Any]) -> None:
        known = self.sequences.get(body["client"], 0)
        self.sequences[body["client"]] = max(known, body["sequence"])

    def _forget_before(self, round_number: int) -> None:
        self._rounds = {
            key: state for key, state in self._rounds.items() if key[1] >= round_number
        }

    def _public(self) -> tuple[Any, ...]:
        current = self.current
        if current is None:
            return (self.ending,)
        where = (current.kind, current.round_number, current.attempt, current.step)
        return (self.ending, *where)


def _logged(draft: Draft) -> dict[str, Any]:
    """What a log line says of an event: who and why, no hashes and no numbers."""
    told = {name: draft.body[name] for name in _TOLD if name in draft.body}
    where = {"run_id": draft.run_id, "round": draft.round_number}
    return {"event": draft.kind, **where, "attempt": draft.attempt, **told}


def _sentence(draft: Draft) -> str:
    words = in_words(draft)
    if draft.round_number is None:
        return words
    return f"round {draft.round_number + 1}: {words}"


def _after(states: Mapping[Key, RoundState], draft: Draft) -> RoundState | None:
    if draft.round_number is None:
        return None
    return applied(states.get((draft.body["task"], draft.round_number)), draft)


def _key(state: RoundState) -> Key:
    return state.kind, state.round_number
