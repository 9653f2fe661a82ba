"""All that the operator's page shows, as plain values; ``/status.json`` gives the same.

Nothing is in it that was not released: states, names and times of partners, and of a
run's metrics what ``run_files`` lets through.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aggregator.authority import Authority
from aggregator.event_words import in_words
from aggregator.events import Draft, now_ms
from aggregator.home import Federation
from aggregator.partners import Partner
from aggregator.rounds import Rounds
from aggregator.run_files import released_history, releases_of, runs_in
from aggregator.traffic import PartnerSeen
from fedtrain.project.agreed_session import partners_below
from fedtrain.project.run_folder import RunFolder
from fedtrain.wire.plan import Plan, PlanPrivacy

_MOST_EVENTS = 60
_MOST_LINES = 200


class Shown(NamedTuple):
    """Where the page looks.

    Attributes:
      federation: The operator's folder.
      plan: That partners approved.
      authority: Knows the partners.
      rounds: Of the run that is served.
      partners: When each was last seen; asked again each time.
    """

    federation: Federation
    plan: Plan
    authority: Authority
    rounds: Rounds
    partners: Mapping[str, PartnerSeen]


def page_state(shown: Shown, *, now: int | None = None) -> dict[str, Any]:
    """What is true now.

    Args:
      shown: Where to look.
      now: Milliseconds since 1970, for tests.
    """
    now = now_ms() if now is None else now
    plan, status = shown.plan, shown.rounds.status()
    folder = RunFolder(shown.federation.runs / shown.rounds.run_id)
    history = released_history(folder, is_protected=plan.privacy is not None)
    current = status["round"]
    return {
        "now_unix_ms": now,
        "federation": {
            "name": plan.name,
            "operator": plan.operator,
            "plan_sha256": plan.sha256,
            "software": plan.software,
            "server_certificate_ends_unix_ms": _server_ends(shown.authority),
        },
        "run": {
            "run_id": status["run_id"],
            "status": status["status"],
            "text": status["text"],
            "num_rounds": plan.num_rounds,
            "rounds_done": history[-1]["rounds_done"] if history else 0,
        },
        "round": current,
        "timeline": timeline(shown.rounds.book.recent),
        "partners": _partners(shown, status),
        "history": history[-_MOST_LINES:],
        "privacy": _privacy(plan.privacy, history),
        "releases": releases_of(folder),
        "runs": runs_in(shown.federation.runs),
    }


def timeline(recent: Sequence[Draft]) -> list[dict[str, Any]]:
    """What happened in the newest round, the latest first."""
    numbers = [draft.round_number for draft in recent if draft.round_number is not None]
    newest = numbers[-1] if numbers else None
    of_round = [draft for draft in recent if draft.round_number in (newest, None)]
    return [
        {
            "unix_ms": draft.unix_ms,
            "kind": draft.kind,
            "round_number": draft.round_number,
            "text": in_words(draft),
        }
        for draft in reversed(of_round[-_MOST_EVENTS:])
    ]


def _partners(shown: Shown, status: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = {partner.client_id: partner for partner in shown.authority.partners()}
    invited = partners_below(shown.plan, shown.federation.region)
    names = sorted({*known, *invited})
    current, seen = status["round"], dict(shown.partners)
    return [
        {
            **_standing(name, known.get(name)),
            **_last_seen(seen.get(name)),
            "contributions": status["participations"].get(name, 0),
            "in_round": _in_round(name, current),
        }
        for name in names
    ]


def _standing(name: str, partner: Partner | None) -> dict[str, Any]:
    if partner is None:
        return {
            "client_id": name,
            "state": "not admitted",
            "ends_unix_ms": None,
            "demo": False,
            "key": "",
        }
    ends = int(1000 * partner.current.expires.timestamp())
    return {
        "client_id": name,
        "state": partner.state,
        "ends_unix_ms": ends,
        "demo": partner.demo,
        "key": partner.fingerprint,
    }


def _last_seen(seen: PartnerSeen | None) -> dict[str, Any]:
    if seen is None:
        return {"last_seen_unix_ms": None, "says": "", "software": ""}
    return {
        "last_seen_unix_ms": seen.last_seen_unix_ms,
        "says": seen.status,
        "software": seen.software,
    }


def _in_round(name: str, current: Mapping[str, Any] | None) -> dict[str, Any]:
    if current is None:
        return {"state": "", "text": "", "since_unix_ms": None}
    if name in current["accepted"]:
        return {"state": "in", "text": "contribution is in", "since_unix_ms": None}
    if name in current["lost"]:
        why = current["lost"][name]
        return {"state": "lost", "text": f"lost: {why}", "since_unix_ms": None}
    for missing in current["missing"]:
        if missing["client"] == name:
            since = missing["since_unix_ms"]
            return {
                "state": "missing",
                "text": missing["text"],
                "since_unix_ms": since,
            }
    return {"state": "", "text": "not in this round", "since_unix_ms": None}


def _privacy(
    privacy: PlanPrivacy | None, history: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    if privacy is None:
        return None
    spent = next(
        (
            row["spent_epsilon"]
            for row in reversed(history)
            if row["spent_epsilon"] is not None
        ),
        0.0,
    )
    return {
        "unit": privacy.unit,
        "trust": privacy.trust,
        "neighboring_relation": privacy.neighboring_relation,
        "delta": privacy.delta,
        "accountant": privacy.accountant,
        "epsilon": privacy.epsilon,
        "spent_epsilon": spent,
        "left_epsilon": max(privacy.epsilon - spent, 0.0),
    }


def _server_ends(authority: Authority) -> int:
    ends = authority.server_certificate().not_valid_after_utc
    return int(1000 * ends.timestamp())
