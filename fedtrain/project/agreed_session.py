"""The session of secure aggregation that an approved plan has a client in."""

from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.project.read import checked_config
from fedtrain.project.secure_session import TOP, ServedSession, served_sessions
from fedtrain.wire.plan import Plan


def agreed_session(plan: Plan, client_id: str) -> ServedSession:
    """The session of all clients, of a cohort or, with regions, of the client's own.

    Args:
      plan: Whose sections define the round.
      client_id: A partner, or a regional aggregator: its session is that of the top.

    Raises:
      ConfigError: If there is no secure aggregation in the plan, or not with it.
    """
    config = checked_config(dict(plan.task["sections"]), file="the plan")
    sessions = served_sessions(config)
    if not sessions:
        raise ConfigError(
            "The sections of the plan have no secure aggregation, but the aggregator "
            "asks for it. Nothing was sent; tell the operator."
        )
    for session in sessions.values():
        if client_id in session.members:
            return session
    raise ConfigError(
        f"{client_id!r} is in no session of the plan {plan.name}. Ask the operator for "
        "a plan that names it."
    )


def is_regional(plan: Plan, client_id: str) -> bool:
    """Whether ``client_id`` is an aggregator of one of the plan's regions."""
    return has_regions(plan) and client_id not in plan.partners


def partners_of(plan: Plan, client_id: str) -> frozenset[str]:
    """Whose keys ``client_id`` may meet: the plan's clients, or those of its session.

    Raises:
      ConfigError: If the plan has regions and ``client_id`` is in none of its sessions.
    """
    if not has_regions(plan):
        return plan.partners
    return frozenset(agreed_session(plan, client_id).members)


def partners_below(plan: Plan, region: str = TOP) -> tuple[str, ...]:
    """Whom the aggregator of ``region`` asks; at the top all, or regional aggregators.

    Raises:
      ConfigError: If the plan has no session for so many clients.
    """
    if has_regions(plan):
        config = checked_config(dict(plan.task["sections"]), file="the plan")
        return served_sessions(config)[region].members
    service: Any = plan.task["sections"].get("service") or {}
    return tuple(str(name) for name in service.get("clients", ()))


def has_regions(plan: Plan) -> bool:
    """Whether aggregators of regions are between the plan's partners and the top."""
    rounds: Any = plan.task["sections"].get("rounds", {})
    return rounds.get("num_regions") is not None
