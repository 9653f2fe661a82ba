"""Events of the journal in plain English: for the page, and for log lines."""

from collections.abc import Callable, Mapping
from typing import Any

from aggregator.events import Draft

STEP_WORDS = {
    "KEYS": "fresh keys",
    "SHARES": "shares of keys",
    "INPUTS": "masked contributions",
    "CONSISTENCY": "signatures of who is in the sum",
    "UNMASK": "shares that open the sum",
}


def in_words(draft: Draft) -> str:
    """What happened, in a few words; the round's number is not among them."""
    body = draft.body
    words: dict[str, Callable[[], str]] = {
        "planned": lambda: f"planned for {len(body['cohort'])} partners",
        "configured": lambda: "the model is ready to be fetched",
        "collecting": lambda: _opened(body),
        "accepted": lambda: f"contribution of {body['client']} is in",
        "lost": lambda: f"{body['client']} is lost: {body['why']}",
        "closed": lambda: f"closed with {len(body['accepted'])} contributions",
        "charged": lambda: "its cost is in the privacy ledger",
        "committed": lambda: "the new model is saved",
        "aborted": lambda: f"aborted: {body['why']}",
        "finished": lambda: f"the run is {body['status']}: {body['text']}",
    }
    tell = words.get(draft.kind)
    return tell() if tell is not None else draft.kind


def _opened(body: Mapping[str, Any]) -> str:
    if "step" in body:
        again = f" (deadline {body['num_deadlines']})"
        more = again if body["num_deadlines"] > 1 else ""
        return f"secure aggregation: waiting for {STEP_WORDS[body['step']]}{more}"
    awaited = "scores" if body.get("task") == "evaluate" else "contributions"
    if body["num_deadlines"] == 1:
        return f"open: waiting for {awaited}"
    again = f"waiting again for {awaited} (deadline {body['num_deadlines']})"
    return f"too few at the deadline: {again}"
