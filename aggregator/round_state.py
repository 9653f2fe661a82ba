"""A round as a state machine: what its events add up to, and what may follow.

Nothing here waits, writes or looks at a clock, so a round that is rebuilt from the
journal after a crash is the one that was left. Stages and report goal follow Bonawitz
et al. (2019), https://arxiv.org/abs/1902.01046, sections 3 and 4.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from aggregator.events import Draft
from fedtrain.core.errors import JournalError
from fedtrain.core.packing import Packing
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.messages_pb2 import (
    ACCEPTED,
    CONFLICT,
    DUPLICATE,
    LATE,
    NON_FINITE,
    NOT_INVITED,
    Code,
)

Kind = Literal["train", "evaluate"]
Stage = Literal[
    "planned", "configured", "collecting", "closed", "charged", "committed", "aborted"
]

# Of a session of secure aggregation.
FIRST_STEP = "KEYS"


class Accepted(NamedTuple):
    """A contribution that lies on the disk.

    Attributes:
      sha256: Of its bytes, in hexadecimal.
      sequence: Of the request that brought it.
    """

    sha256: str
    sequence: int


class RoundState(NamedTuple):
    """One attempt at a round.

    Attributes:
      run_id: The run's name.
      round_number: From 0.
      attempt: From 0; greater than that of every attempt that was aborted.
      kind: Of the task.
      stage: How far it is.
      cohort: Invited clients, in the order of the sum.
      contribution: What each of them sends.
      broadcast_bytes: Length of what each of them receives.
      broadcast_sha256: Of its bytes, in hexadecimal.
      info: Public facts for the clients.
      report_goal: It closes as soon as so many contributions are in.
      least_reports: With fewer it is not closed at a deadline.
      deadline_unix_ms: When the present deadline ends; it informs.
      num_deadlines: How many have begun, this one included.
      since_unix_ms: When clients could first ask for it.
      accepted: Contributions by client.
      lost: Why a client's contribution will not be in the sum, by client.
      state_sha256: Of what the round led to, once committed.
      is_secure: Whether contributions come masked, in a session of secure aggregation.
      step: What of the session is waited for; empty without one.
      sum_sha256: Of the bytes of the sum that the session opened, in hexadecimal.
    """

    run_id: str
    round_number: int
    attempt: int
    kind: Kind
    stage: Stage
    cohort: tuple[str, ...]
    contribution: tuple[ArraySpec, ...]
    broadcast_bytes: int = 0
    broadcast_sha256: str = ""
    info: Mapping[str, Any] = {}  # never changed
    report_goal: int = 0
    least_reports: int = 0
    deadline_unix_ms: int = 0
    num_deadlines: int = 0
    since_unix_ms: int = 0
    accepted: Mapping[str, Accepted] = {}  # never changed
    lost: Mapping[str, str] = {}  # never changed
    state_sha256: str = ""
    is_secure: bool = False
    step: str = ""
    sum_sha256: str = ""

    @property
    def survivors(self) -> tuple[str, ...]:
        """Clients whose contributions are in, in the order of the cohort."""
        return tuple(client for client in self.cohort if client in self.accepted)

    @property
    def missing(self) -> tuple[str, ...]:
        """Clients of whom nothing is known yet."""
        return tuple(
            client
            for client in self.cohort
            if client not in self.accepted and client not in self.lost
        )

    @property
    def is_full(self) -> bool:
        """Whether nobody else's contribution will be taken."""
        if len(self.accepted) >= self.report_goal:
            return True
        return not self.missing and self.has_enough

    @property
    def has_enough(self) -> bool:
        """Whether it may be closed at a deadline."""
        return len(self.accepted) >= self.least_reports

    @property
    def is_hopeless(self) -> bool:
        """Whether too many are lost for it ever to have enough."""
        return len(self.cohort) - len(self.lost) < self.least_reports

    @property
    def is_open(self) -> bool:
        """Whether contributions are taken now."""
        return self.stage == "collecting" and not self.is_full


def answer_to(state: RoundState, client_id: str, sha256: str) -> Code:
    """What a contribution with this hash would be told; ACCEPTED if it would be taken.

    Args:
      state: Of the round and attempt that the contribution is for.
      client_id: Who sends it.
      sha256: Of its bytes, in hexadecimal.
    """
    if client_id not in state.cohort:
        return NOT_INVITED
    found = state.accepted.get(client_id)
    if found is not None:
        return DUPLICATE if found.sha256 == sha256 else CONFLICT
    if client_id in state.lost and state.is_open:
        return NON_FINITE
    return ACCEPTED if state.is_open else LATE


def applied(state: RoundState | None, draft: Draft) -> RoundState:
    """The state after one more event.

    Raises:
      JournalError: If the event cannot follow.
    """
    change = _CHANGES.get(draft.kind)
    if draft.kind == "planned":
        return _planned(draft)
    if state is None or change is None:
        raise _impossible(state, draft)
    allowed, follow = change
    if state.stage not in allowed or draft.attempt != state.attempt:
        raise _impossible(state, draft)
    return follow(state, draft)


def specs_to_json(specs: tuple[ArraySpec, ...]) -> list[list[Any]]:
    """Plain values, for an event."""
    return [
        [list(spec.shape), spec.dtype, *_packing_to_json(spec.packing)]
        for spec in specs
    ]


def _packing_to_json(packing: Packing | None) -> list[int | None]:
    return [] if packing is None else [packing.num_bits, packing.num_kept]


def _planned(draft: Draft) -> RoundState:
    if draft.round_number is None:
        raise _impossible(None, draft)
    body = draft.body
    return RoundState(
        run_id=draft.run_id,
        round_number=draft.round_number,
        attempt=draft.attempt,
        kind=body["task"],
        stage="planned",
        cohort=tuple(body["cohort"]),
        contribution=tuple(
            ArraySpec(tuple(shape), dtype, Packing(*packing) if packing else None)
            for shape, dtype, *packing in body["contribution"]
        ),
        is_secure=body.get("secure", False),
    )


def _configured(state: RoundState, draft: Draft) -> RoundState:
    return state._replace(
        stage="configured",
        broadcast_bytes=draft.body["broadcast_bytes"],
        broadcast_sha256=draft.body["broadcast_sha256"],
        info=draft.body["info"],
    )


def _collecting(state: RoundState, draft: Draft) -> RoundState:
    step = draft.body.get("step", "")
    return state._replace(
        stage="collecting",
        step=step,
        lost={} if step == FIRST_STEP else state.lost,  # a session begins anew
        report_goal=draft.body["report_goal"],
        least_reports=draft.body["least_reports"],
        deadline_unix_ms=draft.body["deadline_unix_ms"],
        num_deadlines=draft.body["num_deadlines"],
        since_unix_ms=state.since_unix_ms or draft.unix_ms,
    )


def _accepted(state: RoundState, draft: Draft) -> RoundState:
    client, sha256 = draft.body["client"], draft.body["sha256"]
    if answer_to(state, client, sha256) != ACCEPTED:
        raise _impossible(state, draft)
    new = Accepted(sha256, draft.body["sequence"])
    return state._replace(accepted={**state.accepted, client: new})


def _lost(state: RoundState, draft: Draft) -> RoundState:
    client = draft.body["client"]
    kept = {name: found for name, found in state.accepted.items() if name != client}
    lost = {**state.lost, client: draft.body["why"]}
    return state._replace(accepted=kept, lost=lost)


def _closed(state: RoundState, draft: Draft) -> RoundState:
    if tuple(draft.body["accepted"]) != state.survivors:
        raise _impossible(state, draft)
    return state._replace(
        stage="closed",
        lost=draft.body["lost"],
        step="",
        sum_sha256=draft.body.get("sum", ""),
    )


def _charged(state: RoundState, _: Draft) -> RoundState:
    return state._replace(stage="charged")


def _committed(state: RoundState, draft: Draft) -> RoundState:
    return state._replace(stage="committed", state_sha256=draft.body["state_sha256"])


def _aborted(state: RoundState, _: Draft) -> RoundState:
    return state._replace(stage="aborted")


_Change = Callable[[RoundState, Draft], RoundState]
_BEFORE_CLOSED = frozenset({"planned", "configured", "collecting"})
_AFTER_CLOSED = frozenset({"closed", "charged", "committed"})
_CHANGES: Mapping[str, tuple[frozenset[str], _Change]] = {
    "planned": (frozenset(), _aborted),
    "configured": (frozenset({"planned"}), _configured),
    "collecting": (frozenset({"configured", "collecting"}), _collecting),
    "accepted": (frozenset({"collecting"}), _accepted),
    "lost": (frozenset({"collecting"}), _lost),
    "closed": (frozenset({"collecting"}), _closed),
    "charged": (frozenset({"closed", "charged"}), _charged),
    "committed": (_AFTER_CLOSED, _committed),
    "aborted": (_BEFORE_CLOSED | _AFTER_CLOSED, _aborted),
}


def _impossible(state: RoundState | None, draft: Draft) -> JournalError:
    stage = "not planned" if state is None else state.stage
    return JournalError(
        f"Round {draft.round_number} of run {draft.run_id!r} is {stage}: no event "
        f"{draft.kind!r} of attempt {draft.attempt} can follow. The journal was "
        "written by another version; use that one."
    )
