"""How a run stands, from the journal alone: also while nothing is running."""

from collections.abc import Iterator, Mapping
from typing import Any

from aggregator.events import Event
from aggregator.home import Federation, current_run
from aggregator.journal import stored_events
from aggregator.round_status import run_status
from aggregator.run_book import RunBook
from aggregator.seen import read_seen
from aggregator.traffic import PartnerSeen


def standing(federation: Federation) -> dict[str, Any]:
    """The state of the federation's run; plain values, as on the operator's page.

    What a missing partner does, only the serving process knows; here is when it was
    last seen, as the page noted it.

    Raises:
      JournalError: If the journal is damaged.
    """
    run_id = current_run(federation)
    if run_id is None:
        text = "not started: run `fedtrain-aggregator serve`"
        return {
            "run_id": "no run",
            "status": "not started",
            "text": text,
            "round": None,
            "rounds": [],
        }
    database = federation.service().database
    events: Any = _Stored(list(stored_events(federation.journal, database)))
    status = run_status(RunBook(events, run_id), {})
    seen = read_seen(federation.seen)
    status["rounds"] = [_as_seen(one, seen) for one in status["rounds"]]
    if status["round"] is not None:
        status["round"] = _as_seen(status["round"], seen)
    return status


def _as_seen(round_: dict[str, Any], seen: Mapping[str, PartnerSeen]) -> dict[str, Any]:
    missing = [
        {"client": one["client"], **_last_seen(seen.get(one["client"]))}
        for one in round_["missing"]
    ]
    return {**round_, "missing": missing}


def _last_seen(seen: PartnerSeen | None) -> dict[str, Any]:
    if seen is None:
        return {"text": "never seen", "since_unix_ms": None}
    return {"text": "last seen", "since_unix_ms": seen.last_seen_unix_ms}


class _Stored:
    """Events that were read without being the journal's writer."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def events(self) -> Iterator[Event]:
        return iter(self._events)
