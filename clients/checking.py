"""A rehearsal on the partner's machine: everything but what leaves it."""

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np

from clients.agent import Local
from clients.home import Home
from clients.pins import check_names_all, keys_of_partners, pinned
from clients.policy import Facts, Policy, read_policy
from clients.work import RoundTask, Work
from fedtrain.core.errors import ConfigError
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import all_finite, chunks, from_bytes, num_bytes
from fedtrain.wire.certificates import certificate_in
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.plan import Plan

# The seed is for plans that repeat a simulation; others draw their own.
_TASK = RoundTask("dry-run", 0, 0, "train", "", {"seed": [0, 0]})


def dry_run(invitation: Invitation, home: Home, local: Local) -> list[dict[str, Any]]:
    """Checks certificate, policy and rows, and computes one round from zeros.

    Nothing is sent and nothing is charged.

    Returns:
      What was checked, a row each.

    Raises:
      IdentityError: If the invitation or the certificate is not usable.
      PolicyError: With each clause of the policy that forbids the plan.
      DataError: Naming row, column and value, if a row does not fit the schema.
    """
    plan = invitation.parsed_plan()
    pair = accept(invitation, home.path)
    ends = certificate_in(pair.certificate_pem).not_valid_after_utc
    policy = read_policy(home.policy_path)
    if policy is None:
        raise ConfigError(
            f"{home.policy_path} does not exist yet. Run `fedtrain-client approve`."
        )
    policy.check(plan, Facts(is_demo=invitation.demo))
    work = local.work_of(plan)
    facts = Facts(num_examples=work.num_examples, is_demo=invitation.demo)
    policy.check(plan, facts)
    keys = _keys_of_all(invitation, home)
    approved = "approved" if policy.approves(plan) else "allowed, not approved yet"
    return [
        _row("certificate", f"good for {(ends - datetime.now(UTC)).days} days"),
        _row("policy", f"the plan is {approved}"),
        *keys,
        _row("data", f"{work.num_examples} rows fit the schema"),
        _row("one round", _rehearsed(plan, work)),
        _row("epsilon so far", _afforded(plan, work, local, policy)),
    ]


def _keys_of_all(invitation: Invitation, home: Home) -> list[dict[str, Any]]:
    """Whether the keys of all partners are pinned, where masks depend on them."""
    plan = invitation.parsed_plan()
    if not plan.secure_aggregation:
        return []
    check_names_all(invitation)
    keys = keys_of_partners(
        invitation.roster, plan=plan, client_id=invitation.client_id
    )
    known = pinned(home.pins_path)
    others = [name for name, key in keys.items() if known.get(name) != key]
    found = f"pinned, of {len(keys)} partners"
    return [_row("keys", f"not pinned: {', '.join(others)}" if others else found)]


def _rehearsed(plan: Plan, work: Work) -> str:
    began = time.monotonic()
    zeros = from_bytes(plan.broadcast, np.zeros(num_bytes(plan.broadcast), np.uint8))
    answer = work.compute(_TASK, zeros)
    took_s = time.monotonic() - began
    size = sum(map(len, chunks(plan.contribution, answer)))
    finite = "all finite" if all_finite(answer) else "NOT FINITE: it would be lost"
    return f"computed in {took_s:.1f} s; {size} bytes, {finite}"


def _afforded(plan: Plan, work: Work, local: Local, policy: Policy) -> str:
    odometer, cost = local.odometer_of(plan), work.cost(_TASK)
    if cost is not None:
        odometer.check(_TASK, cost, max_epsilon=policy.max_epsilon)
    spent = odometer.spent()
    epsilon = "without a bound" if spent["epsilon"] is None else spent["epsilon"]
    return (
        f"{epsilon} of these rows (unit {spent['unit']}, delta "
        f"{spent['delta']:g}); your policy allows {policy.max_epsilon:g}"
    )


def _row(what: str, found: str) -> dict[str, Any]:
    return {"check": what, "found": found}
