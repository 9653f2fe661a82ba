"""The partner's loop: ask, check the policy, compute, charge, keep, send, record.

The order is the guarantee. Nothing is computed that the policy does not allow; nothing
leaves that is not charged, on the disk, and in the audit log; and an answer that may
have been seen is never computed again.
"""

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from clients.answers import Answer, Answers
from clients.audit import AuditLog
from clients.calls import (
    Calls,
    RefusedError,
    RejectedError,
    RoundClosedError,
    UnreachableError,
    printable,
)
from clients.home import Home
from clients.patience import Patience, backoff_s
from clients.policy import Facts, Policy, read_policy
from clients.secure import Means, SecurePart
from clients.served import KINDS, answer_specs, round_task, served_plan
from clients.taking_part import Odometer, TakingPart
from clients.work import RoundTask, Work
from fedtrain.core.errors import (
    IdentityError,
    LedgerError,
    PolicyError,
    StoppedError,
)
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.plan import Plan

LONG_POLL_MS = 25_000
_LOOK_AGAIN_S = 2.0
_LEAST_PAUSE_S = 0.05
_RENEW_AGAIN_S = 3600.0


class Event(NamedTuple):
    """What the agent has to tell the person who runs it.

    Attributes:
      what: One word.
      text: A sentence.
      facts: Plain values.
    """

    what: str
    text: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Local:
    """What the partner brings: all of it is asked for after the policy has agreed.

    Attributes:
      work_of: Reads and checks the rows, and builds the plan's round.
      odometer_of: Opens the ledger of the rows.
      tell: Where events go.
      pause: Sleeps for so many seconds.
      waits_for: What a session cannot begin without here; empty if it can.
    """

    work_of: Callable[[Plan], Work]
    odometer_of: Callable[[Plan], Odometer]
    tell: Callable[[Event], None]
    pause: Callable[[float], None] = time.sleep
    waits_for: Callable[[], str] = lambda: ""


class Agent:
    """Takes part in one run.

    Args:
      calls: The connection.
      home: Where keys, policy, log and answers are; one agent uses it at a time.
      invitation: What the partner has reviewed.
      local: The partner's rows, ledger and screen.
    """

    def __init__(
        self, calls: Calls, home: Home, invitation: Invitation, local: Local
    ) -> None:
        self._calls = calls
        self._home = home
        self._invitation = invitation
        self._local = local
        self._answers = Answers(home.answers_path)
        self._audit = AuditLog(home.audit_path)
        self._renew_at = 0.0
        self._patience = Patience(
            reconnect=calls.reconnect,
            tell=lambda why: self._tell("waiting", why),
            pause=local.pause,
        )
        self._secure = SecurePart(
            home,
            operator_key=invitation.operator_key,
            means=Means(calls, self._patience, self._audit, self._tell, local.pause),
        )

    def run(self) -> None:
        """Works until the run is finished.

        Raises:
          StoppedError: If the operator stopped the run, or serves another plan.
          PolicyError: If the partner's policy does not allow the plan, or no longer.
          RefusedError: If the aggregator does not accept this client.
          BudgetExhaustedError: If the next answer would spend too much.
          LedgerError: If ledger or audit log are not what was written.
        """
        session = self._begin()
        while True:
            self._renew_if_due()
            task = self._next_task(session)
            if task.kind in (pb.FINISHED, pb.STOPPED):
                self._forget(session)
            if task.kind == pb.FINISHED:
                self._tell("finished", "The run is finished. Nothing more will leave.")
                return
            self._do(session, task)

    def _forget(self, session: TakingPart) -> None:
        """Every answer was acknowledged, or will never be taken."""
        try:
            session.work.forget()
        except OSError as error:
            self._tell("not deleted", f"The key of this run's noise is left: {error}")

    def _begin(self) -> TakingPart:
        hello = self._patience.until_answered(self._calls.hello)
        plan = served_plan(hello, self._invitation)
        self._tell("connected", f"Connected: run {hello.run_id}, plan {plan.sha256}.")
        self._wait_for_approval(hello.run_id, plan)
        self._allowed(plan, None)
        work, odometer = self._local.work_of(plan), self._local.odometer_of(plan)
        self._allowed(plan, work.num_examples)
        for head in self._audit.ledgers().values():
            odometer.expect(head)
        return TakingPart(hello.run_id, plan, work, odometer)

    def _wait_for_approval(self, run_id: str, plan: Plan) -> None:
        if self._approval(plan) is not None:
            return
        self._tell(
            "not approved",
            "You have not approved this plan. Read it with `fedtrain-client review`, "
            "then run `fedtrain-client approve`; this command waits until then.",
        )
        while self._approval(plan) is None:
            self._say_waiting(run_id, "waiting for approval")

    def _say_waiting(self, run_id: str, why: str) -> None:
        """Lets the operator's page say why nothing comes; whatever it answers."""
        try:
            self._calls.next_task(run_id, plan_sha256="", status=why, wait_ms=0)
        except (UnreachableError, RoundClosedError, RefusedError, StoppedError):
            self._calls.reconnect()
        self._local.pause(_LOOK_AGAIN_S)

    def _approval(self, plan: Plan) -> Policy | None:
        policy = read_policy(self._home.policy_path)
        return policy if policy is not None and policy.approves(plan) else None

    def _allowed(self, plan: Plan, num_examples: int | None) -> Policy:
        """The policy as it is now, which approves and allows ``plan``."""
        policy = self._approval(plan)
        if policy is None:
            raise PolicyError(
                f"The approval of this plan was taken out of {self._home.policy_path}. "
                "Nothing more has left; approve it again to go on."
            )
        facts = Facts(num_examples=num_examples, is_demo=self._invitation.demo)
        policy.check(plan, facts)
        return policy

    def _next_task(self, session: TakingPart) -> pb.Task:
        return self._patience.until_answered(
            lambda: self._calls.next_task(
                session.run_id,
                plan_sha256=session.plan.sha256,
                status="ready",
                wait_ms=LONG_POLL_MS,
            )
        )

    def _do(self, session: TakingPart, task: pb.Task) -> None:
        if task.kind == pb.STOPPED:
            raise StoppedError(f"The operator stopped the run: {printable(task.text)}")
        if task.kind not in KINDS:
            wait_s = min(task.wait_ms, LONG_POLL_MS) / 1000
            self._local.pause(max(wait_s, _LEAST_PAUSE_S))
            return
        if task.step == pb.KEYS and (why := self._local.waits_for()):
            self._say_waiting(session.run_id, why)
            return
        try:
            self._answer(session, task)
        except RoundClosedError as error:
            self._tell(
                "late", f"Round {task.round_number + 1} went on without us: {error}"
            )
        except (OSError, LedgerError) as error:
            if not _is_of_the_disk(error):
                raise
            self._tell("disk", f"{error} Trying again.")
            self._local.pause(backoff_s(4))

    def _answer(self, session: TakingPart, task: pb.Task) -> None:
        allowed = partial(self._allowed, session.plan, session.work.num_examples)
        policy = allowed()
        asked = round_task(session.plan, session.run_id, task)
        if session.plan.secure_aggregation:
            self._secure.answer(session, task, asked, allowed=allowed)
            return
        answer = self._answers.load(asked)
        if answer is None and self._may_have_left(asked):
            self._tell(
                "lost",
                f"The answer to round {asked.round_number + 1} was sent and is not "
                "kept here. It is not computed again: that would show its noise twice. "
                "The operator can ask anew: `fedtrain-aggregator runs again`.",
            )
            self._local.pause(_LOOK_AGAIN_S)
            return
        if answer is None:
            answer = self._computed(session, task, asked, policy.max_epsilon)
        self._send(session, asked, answer)

    def _may_have_left(self, asked: RoundTask) -> bool:
        return self._audit.last(what="sending", **asked.facts) is not None

    def _computed(
        self, session: TakingPart, task: pb.Task, asked: RoundTask, max_epsilon: float
    ) -> Answer:
        """Affordable, computed, charged, and on the disk."""
        _, plan, work, odometer = session
        specs, cost = answer_specs(plan, asked), work.cost(asked)
        if cost is not None:
            odometer.check(asked, cost, max_epsilon=max_epsilon)
        broadcast = session.broadcast(task, calls=self._calls, patience=self._patience)
        self._tell("computing", f"Round {asked.round_number + 1}: {asked.kind}.")
        work.kept = self._answers.kept(asked)
        arrays = work.compute(asked, broadcast)
        if cost is not None:
            odometer.charge(asked, cost, max_epsilon=max_epsilon)
        spent = None if cost is None else odometer.spent()
        return self._answers.save(asked, specs, arrays, {"spent": spent}, work.kept)

    def _send(self, session: TakingPart, asked: RoundTask, answer: Answer) -> None:
        """Records that it leaves, sends it until it is taken, records how it went."""
        self._allowed(session.plan, session.work.num_examples)
        facts = {
            **asked.facts,
            "bytes": answer.facts["num_bytes"],
            "sha256": answer.facts["sha256"],
            "spent": answer.facts["spent"],
            "ledger": session.odometer.head(),
        }
        self._audit.append("sending", facts)
        taken, text = self._outcome(session, asked, answer)
        self._audit.append(taken, asked.facts)
        self._tell(taken, f"Round {asked.round_number + 1}: {text}", **facts)
        if taken != "accepted":
            self._local.pause(_LOOK_AGAIN_S)

    def _outcome(
        self, session: TakingPart, asked: RoundTask, answer: Answer
    ) -> tuple[str, str]:
        header = session.header(
            asked,
            self._audit.head(),
            num_bytes=answer.facts["num_bytes"],
            sha256=bytes.fromhex(answer.facts["sha256"]),
        )
        try:
            self._patience.until_answered(
                lambda: self._calls.submit(
                    session.run_id, asked.round_number, header, answer.parts
                )
            )
        except RoundClosedError as error:
            return "late", str(error)
        except RejectedError as error:
            return "rejected", str(error)
        return "accepted", f"{answer.facts['num_bytes']} bytes were taken."

    def _renew_if_due(self) -> None:
        """Renews the certificate; a failure is tried again later, not waited for."""
        now = datetime.datetime.now(datetime.UTC)
        if time.monotonic() < self._renew_at or not self._home.is_due(now=now):
            return
        try:
            self._home.renew(self._calls.renew, self._invitation, now=now)
        except (UnreachableError, RefusedError, StoppedError, IdentityError) as error:
            self._renew_at = time.monotonic() + _RENEW_AGAIN_S
            self._tell("not renewed", f"The certificate was not renewed: {error}")
            return
        self._calls.reconnect()
        self._tell("renewed", "The certificate was renewed.")

    def _tell(self, what: str, text: str, **facts: Any) -> None:
        self._local.tell(Event(what, text, facts))


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) or isinstance(error.__cause__, OSError)
