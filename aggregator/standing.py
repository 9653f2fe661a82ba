"""How a run stands, from the journal alone: also while nothing is running."""

from collections.abc import Iterator
from typing import Any

from aggregator.events import Event
from aggregator.home import Federation, current_run
from aggregator.journal import stored_events
from aggregator.round_status import run_status
from aggregator.run_book import RunBook


def standing(federation: Federation) -> dict[str, Any]:
    """The state of the federation's run; plain values, as on the operator's page.

    Raises:
      JournalError: If the journal is damaged.
    """
    run_id = current_run(federation)
    if run_id is None:
        text = "not started: run `fedtrain-aggregator serve`"
        return {"run_id": "no run", "text": text, "round": None, "rounds": []}
    database = federation.service().database
    events: Any = _Stored(list(stored_events(federation.journal, database)))
    book = RunBook(events, run_id)
    return run_status(book, {})


class _Stored:
    """Events that were read without being the journal's writer."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def events(self) -> Iterator[Event]:
        return iter(self._events)
