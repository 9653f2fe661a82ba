"""What the page says in sentences: how things stand, and what wants looking at."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

_AWAY_MS = 90_000
_SOON_MS = 14 * 86_400_000
_UNITS = {86_400: "d", 3600: "h", 60: "min", 1: "s"}


def headline(state: Mapping[str, Any]) -> str:
    """How the run stands, in one sentence."""
    run, current = state["run"], state["round"]
    if run["status"] != "running":
        return f"The run is {run['status']}: {run['text']}."
    if current is None:
        if not _admitted(state):
            return "Nobody is admitted yet."
        return "No round is open: the aggregator is starting, or between two rounds."
    number = f"Round {current['round_number'] + 1} of {run['num_rounds']}"
    missing = [one["client"] for one in current["missing"]]
    if current["stage"] != "collecting" or not missing:
        return f"{number} is being finished."
    return f"{number} waits for {listed(missing)}."


def closing(state: Mapping[str, Any]) -> str:
    """When the open round closes; empty where none is open."""
    current = state["round"]
    if current is None or current["stage"] != "collecting":
        return ""
    left_ms = current["deadline_unix_ms"] - state["now_unix_ms"]
    when = f"in {duration(left_ms)}" if left_ms > 0 else "now"
    return (
        f"It closes with {current['report_goal']} contributions, or at its deadline "
        f"{when} ({clock(current['deadline_unix_ms'])}) with at least "
        f"{current['least_reports']}. {len(current['accepted'])} are in."
    )


def attention(state: Mapping[str, Any]) -> list[str]:
    """What the operator may have to do something about, in sentences."""
    return [*_of_partners(state), *_of_round(state), *_of_certificates(state)]


def pill(state: Mapping[str, Any]) -> tuple[str, str]:
    """The run's state in a word, and its tone: good, busy or bad."""
    status = state["run"]["status"]
    if status == "finished":
        return "finished", "good"
    if status == "stopped":
        return "stopped", "bad"
    if state["round"] is None:
        return "idle", "busy"
    return ("needs a look", "bad") if attention(state) else ("running", "busy")


def presence(partner: Mapping[str, Any], now: int) -> tuple[str, str]:
    """When a partner was last seen, in words, and the tone of it."""
    seen = partner["last_seen_unix_ms"]
    if seen is None:
        return "never seen", "idle"
    if now - seen <= _AWAY_MS:
        return f"{duration(now - seen)} ago", "good"
    return f"{duration(now - seen)} ago", "bad"


def duration(ms: float) -> str:
    """A span of time in its two largest units at most: "3 min 20 s"."""
    seconds = max(int(ms / 1000), 0)
    sizes = [size for size in _UNITS if size <= seconds] or [1]
    largest, *smaller = sizes
    parts = [f"{seconds // largest} {_UNITS[largest]}"]
    if smaller and (rest := seconds % largest // smaller[0]):
        parts.append(f"{rest} {_UNITS[smaller[0]]}")
    return " ".join(parts)


def clock(unix_ms: int | None) -> str:
    """A moment as people at different places read it: UTC, to the second."""
    if unix_ms is None:
        return ""
    return f"{datetime.fromtimestamp(unix_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(unix_ms: int | None) -> str:
    """A date, in UTC."""
    if unix_ms is None:
        return ""
    return f"{datetime.fromtimestamp(unix_ms / 1000, UTC):%Y-%m-%d}"


def listed(names: list[str], most: int = 5) -> str:
    """Names with commas and an "and"; of many the first and a number."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} others"]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _admitted(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in state["partners"] if one["state"] == "admitted"]


def _of_partners(state: Mapping[str, Any]) -> Iterator[str]:
    if state["run"]["status"] != "running":
        return
    unknown = [
        p["client_id"] for p in state["partners"] if p["state"] == "not admitted"
    ]
    if unknown:
        yield (
            f"{listed(unknown)} cannot take part yet: `fedtrain-aggregator admit` the "
            "request that the partner sends you."
        )
    now = state["now_unix_ms"]
    for partner in _admitted(state):
        name, seen = partner["client_id"], partner["last_seen_unix_ms"]
        if partner["in_round"]["state"] != "missing":
            continue
        if seen is None:
            yield f"{name} has never called: is `fedtrain-client join` running there?"
        elif now - seen > _AWAY_MS and "works" not in partner["in_round"]["text"]:
            yield (
                f"{name} was last seen {duration(now - seen)} ago: ask whether "
                "`fedtrain-client join` is running there."
            )


def _of_round(state: Mapping[str, Any]) -> Iterator[str]:
    current = state["round"]
    if current is None:
        return
    for client, why in current["lost"].items():
        yield f"{client} is lost to this round: {why}."
    if current["num_deadlines"] > 1:
        yield (
            f"This is deadline {current['num_deadlines']} of the round: too few "
            "contributions came before."
        )


def _of_certificates(state: Mapping[str, Any]) -> Iterator[str]:
    now = state["now_unix_ms"]
    ends = state["federation"]["server_certificate_ends_unix_ms"]
    if ends - now < _SOON_MS:
        yield f"The server's certificate ends {day(ends)}: `fedtrain-aggregator rotate`"
    for partner in _admitted(state):
        ends = partner["ends_unix_ms"]
        if ends < now:
            yield f"The certificate of {partner['client_id']} ended {day(ends)}."
        elif ends - now < _SOON_MS:
            yield (
                f"The certificate of {partner['client_id']} ends {day(ends)}; a client "
                "that runs renews it by itself."
            )
