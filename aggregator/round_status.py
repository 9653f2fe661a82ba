"""What the operator is told of a run, as plain values: for command line and page."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aggregator.event_words import STEP_WORDS
from aggregator.page_words import listed
from aggregator.reception import Activity
from aggregator.round_state import RoundState
from aggregator.run_book import RunBook


def run_status(
    book: RunBook,
    activity: Mapping[str, Activity],
    awaited: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The run, its open round, and the rounds that are remembered.

    Args:
      book: The run's rounds.
      activity: What each client was last seen to do.
      awaited: Whom the open step of secure aggregation waits for, where one is open.
    """
    ending, current = book.ending, book.current
    return {
        "run_id": book.run_id,
        "status": ending.status if ending is not None else "running",
        "text": ending.text if ending is not None else _waiting_for(book),
        "round": _open_round(current, activity, awaited),
        "rounds": [round_status(state, activity) for state in book.all()],
        "participations": dict(book.participations),
    }


def round_status(state: RoundState, activity: Mapping[str, Activity]) -> dict[str, Any]:
    """One round: its stage, who is missing since when, and who is lost and why."""
    return {
        "round_number": state.round_number,
        "kind": state.kind,
        "attempt": state.attempt,
        "stage": state.stage,
        "cohort_size": len(state.cohort),
        "report_goal": state.report_goal,
        "least_reports": state.least_reports,
        "since_unix_ms": state.since_unix_ms,
        "deadline_unix_ms": state.deadline_unix_ms,
        "num_deadlines": state.num_deadlines,
        "closes": _closes(state),
        "accepted": list(state.survivors),
        "missing": [_missing(state, client, activity) for client in state.missing],
        "lost": dict(state.lost),
        "state_sha256": state.state_sha256,
    }


def _open_round(
    state: RoundState | None,
    activity: Mapping[str, Activity],
    awaited: Sequence[str] | None,
) -> dict[str, Any] | None:
    if state is None:
        return None
    found = round_status(state, activity)
    if awaited is not None:
        found["missing"] = [_missing(state, client, activity) for client in awaited]
    return found


def _missing(
    state: RoundState, client_id: str, activity: Mapping[str, Activity]
) -> dict[str, Any]:
    seen = activity.get(client_id)
    if seen is None or seen.since_unix_ms < state.since_unix_ms:
        seen = Activity("has not asked since the round opened", state.since_unix_ms)
    return {"client": client_id, **seen._asdict()}


def _closes(state: RoundState) -> str:
    if state.stage != "collecting":
        return "it is closed" if state.stage != "aborted" else "it was aborted"
    at = datetime.fromtimestamp(state.deadline_unix_ms / 1000, UTC)
    if state.step:
        return (
            f"after secure aggregation, which waits for {STEP_WORDS[state.step]} until "
            f"{at:%Y-%m-%d %H:%M:%S} UTC and needs those of {state.least_reports}"
        )
    return (
        f"when {state.report_goal} of {len(state.cohort)} contributions are in, or at "
        f"{at:%Y-%m-%d %H:%M:%S} UTC with at least {state.least_reports}; "
        f"{len(state.accepted)} are in"
    )


def _waiting_for(book: RunBook) -> str:
    if book.failure is not None:
        return f"the journal has failed: {book.failure}"
    if book.current is None:
        return "no round is open: the aggregator is starting or between rounds"
    missing = list(book.current.missing)
    return f"waiting for {listed(missing)}" if missing else "a round is being finished"
