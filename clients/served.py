"""What the aggregator says, held against what the partner has approved."""

import json
import re
from typing import Any, Literal

from clients.work import RoundTask
from fedtrain.core.errors import StoppedError, WireError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.plan import PROTOCOL_VERSION, Plan

KINDS: dict[int, Literal["train", "evaluate"]] = {
    pb.TRAIN: "train",
    pb.EVALUATE: "evaluate",
}
_MOST_INFO_BYTES = 64 * 1024
# Answers are files whose names begin with it.
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def served_plan(hello: pb.HelloReply, invitation: Invitation) -> Plan:
    """The plan that ``hello`` names: the invitation's, letter for letter.

    Raises:
      StoppedError: If it is another one, or the version of the protocol is.
    """
    if hello.protocol_version != PROTOCOL_VERSION:
        raise StoppedError(
            f"The aggregator speaks version {hello.protocol_version} of the protocol, "
            f"this client {PROTOCOL_VERSION}. Install the version that the plan names."
        )
    plan = Plan.from_bytes(hello.plan)
    if plan.sha256 != invitation.plan_sha256:
        raise StoppedError(
            f"The aggregator serves another plan ({plan.sha256}) than your invitation's"
            f" ({invitation.plan_sha256}). Ask the operator for a new invitation, and "
            "review and approve it."
        )
    if not _RUN_ID.fullmatch(hello.run_id):
        raise WireError(f"{hello.run_id[:80]!r} is no run id.")
    return plan


def round_task(plan: Plan, run_id: str, task: pb.Task) -> RoundTask:
    """``task`` as what is asked for, within what ``plan`` has.

    Raises:
      StoppedError: If it asks for a round that the plan does not have.
      WireError: If its facts are no JSON object of at most 64 KiB.
    """
    if task.round_number >= plan.num_rounds:
        raise StoppedError(
            f"The aggregator asks for round {task.round_number} (the first is 0); the "
            f"plan that you approved has {plan.num_rounds}. Nothing was sent."
        )
    if (task.step != pb.NO_STEP) != plan.secure_aggregation:
        raise StoppedError(
            "The aggregator asks for a contribution by itself, and the plan that you "
            "approved has secure aggregation. Nothing was sent."
            if plan.secure_aggregation
            else "The aggregator asks for secure aggregation, which the plan that you "
            "approved does not have. Nothing was sent."
        )
    return RoundTask(
        run_id=run_id,
        round_number=task.round_number,
        attempt=task.attempt,
        kind=KINDS[task.kind],
        broadcast_sha256=task.broadcast_sha256.hex(),
        info=_public_facts(task.info),
    )


def _public_facts(info: bytes) -> dict[str, Any]:
    if not info:
        return {}
    if len(info) > _MOST_INFO_BYTES:
        raise WireError(f"A task's facts take {len(info)} bytes, above 64 KiB.")
    try:
        facts = json.loads(info)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise WireError("A task's facts are no JSON object.")
    return facts


def answer_specs(plan: Plan, asked: RoundTask) -> tuple[ArraySpec, ...]:
    """The arrays that answer ``asked``.

    Raises:
      StoppedError: If the plan has no evaluation rounds.
    """
    specs = plan.contribution if asked.kind == "train" else plan.evaluation
    if not specs:
        raise StoppedError(
            "The aggregator asks for an evaluation; the plan that you approved has "
            "none. Nothing was sent."
        )
    return specs
