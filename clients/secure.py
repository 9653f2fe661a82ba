"""A client's part in sessions of secure aggregation, one at a time.

Its secrets of a session are in memory only: whoever starts this program again has lost
the session, and joins the next one. What must outlive it is on the disk first: the
charge and the audit log before the masked contribution leaves, and that the session is
answered before the shares leave that open it.
"""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clients.answered_sessions import AnsweredSessions
from clients.audit import AuditLog
from clients.calls import Calls, RejectedError, RoundClosedError
from clients.home import Home
from clients.patience import Patience
from clients.pins import keys_of_partners, pinned, raw_keys
from clients.policy import Policy
from clients.taking_part import TakingPart
from clients.work import NoAnswerError, RoundTask
from fedtrain.core.errors import PolicyError
from fedtrain.project.agreed_session import agreed_session, is_regional
from fedtrain.secagg import masks
from fedtrain.secagg.approval import Approval
from fedtrain.secagg.blame import BreachError, UnauthenticError, relay_breach
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.masks import Vector
from fedtrain.secagg.parameters import Parameters
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import num_bytes
from fedtrain.wire.identity import public_key_from

_PAUSE_S = 2.0


class Means(NamedTuple):
    """What of the agent a session needs.

    Attributes:
      calls: The connection.
      patience: Calls until there is an answer.
      audit: What left.
      tell: Told a word, a sentence and facts.
      pause: Sleeps for so many seconds.
    """

    calls: Calls
    patience: Patience
    audit: AuditLog
    tell: Callable[..., None]
    pause: Callable[[float], None]


@dataclass
class _Open:
    """The session that this client is in."""

    session: ClientSession
    roster_message: bytes
    asked: RoundTask
    vector: Vector | None = None
    announced: bytes = b""
    is_recorded: bool = False


class SecurePart:
    """Answers the steps of sessions.

    Args:
      home: Keys, pinned keys and answered sessions.
      operator_key: The operator's identity key, as text.
      means: Of the agent.
    """

    def __init__(self, home: Home, *, operator_key: str, means: Means) -> None:
        self._home = home
        self._operator_key = public_key_from(operator_key)
        self._means = means
        self._open: _Open | None = None
        self._told: tuple[str, str] | None = None

    def answer(
        self,
        part: TakingPart,
        task: pb.Task,
        asked: RoundTask,
        *,
        allowed: Callable[[], Policy],
    ) -> None:
        """Answers one step, if nothing speaks against it.

        Args:
          part: The run.
          task: With the step and the operator's message.
          asked: The same, checked against the plan.
          allowed: The policy as it is now; raises where it does not allow the plan.

        Raises:
          PolicyError: If the roster is not what the partner has agreed to.
          BudgetExhaustedError: If the contribution would spend too much.
          RoundClosedError: If the session has gone on without this client.
        """
        try:
            self._answer(part, task, asked, allowed)
        except BreachError as error:
            self._leave(part, asked, error)
        except NoAnswerError as error:
            self._open = None
            self._note_left(asked, str(error))
        except UnauthenticError as error:
            self._means.tell("waiting", f"A message is not the operator's: {error}")
            self._means.pause(_PAUSE_S)
        except RejectedError as error:
            self._means.tell("rejected", f"Round {asked.round_number + 1}: {error}")
            self._means.pause(_PAUSE_S)
        except RoundClosedError:
            self._means.pause(_PAUSE_S)  # what is asked next may not be ready yet
            raise

    def _answer(
        self,
        part: TakingPart,
        task: pb.Task,
        asked: RoundTask,
        allowed: Callable[[], Policy],
    ) -> None:
        if task.step == pb.KEYS:
            self._join(part, task, asked, allowed())
        open_ = self._open
        if open_ is None or not _is_same_attempt(open_.asked, asked):
            self._say_lost(asked)
        elif open_.asked.broadcast_sha256 != asked.broadcast_sha256:
            raise relay_breach("the weights are not those that the keys were asked for")
        elif task.step == pb.INPUT:
            self._contribute(part, task, open_, allowed)
        else:
            self._reply(part, task, open_)

    def _join(
        self, part: TakingPart, task: pb.Task, asked: RoundTask, policy: Policy
    ) -> None:
        """Enters the session of the roster, with fresh keys; once for each roster."""
        if self._open is not None and self._open.roster_message == task.step_message:
            return
        self._open = None
        if self._has_contributed(asked):
            return
        session = self._session(part, task, asked, policy)
        roster = session.roster
        if (roster.round_number, roster.attempt) != (asked.round_number, asked.attempt):
            raise relay_breach("the roster is of another round than the task")
        asked = asked._replace(session=roster.session.hex())
        cost = part.work.cost(asked)
        if cost is not None:
            part.odometer.check(asked, cost, max_epsilon=policy.max_epsilon)
        self._open = _Open(session, task.step_message, asked)
        self._means.tell("joined", _in_words(asked, roster.parameters))

    def _session(
        self, part: TakingPart, task: pb.Task, asked: RoundTask, policy: Policy
    ) -> ClientSession:
        folder = self._home.sessions_path / asked.run_id
        try:
            return ClientSession(
                task.step_message,
                client_id=self._home.client_id,
                identity=self._home.keys().identity,
                approval=self._approval(part, policy),
                answered=AnsweredSessions(folder, asked.attempt),
            )
        except PolicyError as error:
            raise PolicyError(
                f"{error} Ask the operator why. Keys are pinned by `fedtrain-client "
                "approve` of an invitation that was made when all partners were "
                f"admitted; min_cohort is in {self._home.policy_path}."
            ) from error

    def _approval(self, part: TakingPart, policy: Policy) -> Approval:
        plan, client_id = part.plan, self._home.client_id
        agreed = agreed_session(plan, client_id).parameters
        keys = keys_of_partners(
            pinned(self._home.pins_path), plan=plan, client_id=client_id
        )
        # A regional aggregator's policy counts partners, and its session regions.
        least = 0 if is_regional(plan, client_id) else policy.min_cohort
        return Approval(
            operator_key=self._operator_key,
            plan_sha256=bytes.fromhex(plan.sha256),
            pinned_keys=raw_keys(keys),
            vector_length=sum(spec.size for spec in plan.contribution),
            least_clients=max(agreed.threshold, least),
            least_colluding=agreed.num_colluding,
            least_honest_survivors=agreed.num_honest_survivors,
            least_threshold=agreed.threshold,
        )

    def _contribute(
        self,
        part: TakingPart,
        task: pb.Task,
        open_: _Open,
        allowed: Callable[[], Policy],
    ) -> None:
        """Masks and sends a contribution that was charged and written down before."""
        open_.session.hold_shares(task.step_message)
        if not open_.announced:
            open_.vector = self._computed(part, task, open_.asked, allowed())
            open_.announced = open_.session.mask(open_.vector)
        vector, asked = open_.vector, open_.asked
        if vector is None:
            return
        sha256 = masks.content_sha256(vector)
        if not open_.is_recorded:
            allowed()
            self._means.audit.append("sending", self._facts(part, asked, sha256))
            open_.is_recorded = True
        header = self._header(part, asked, task.step, vector.nbytes, sha256)
        header.step_message = open_.announced
        try:
            self._submit(part, asked, header, lambda: masks.content(vector))
        except RoundClosedError:
            self._means.audit.append("late", asked.facts)
            raise
        self._means.audit.append("accepted", asked.facts)
        self._said(asked, task.step, f"{vector.nbytes} masked bytes were taken")

    def _computed(
        self, part: TakingPart, task: pb.Task, asked: RoundTask, policy: Policy
    ) -> Vector:
        """The contribution with its noise, charged."""
        work, cost = part.work, part.work.cost(asked)
        broadcast = part.broadcast(
            task, calls=self._means.calls, patience=self._means.patience
        )
        self._means.tell("computing", f"Round {asked.round_number + 1}: {asked.kind}.")
        work.kept = b""
        (array,) = work.compute(asked, broadcast)
        if cost is not None:
            part.odometer.charge(asked, cost, max_epsilon=policy.max_epsilon)
        return np.array(array, np.uint32).reshape(-1)

    def _reply(self, part: TakingPart, task: pb.Task, open_: _Open) -> None:
        session, message, asked = open_.session, task.step_message, open_.asked
        if task.step == pb.KEYS:
            content = session.advertisement()
        elif task.step == pb.SHARES:
            content = session.share_keys(message)
        elif task.step == pb.CONSISTENCY:
            content = session.confirm(message)
            named = {"survivors": list(session.survivors)}
            self._means.audit.append("confirming", {**asked.facts, **named})
        elif task.step == pb.UNMASKING:
            content = session.unmask(message)
        else:
            raise relay_breach(f"there is no step {task.step}")
        self._send(part, asked, task.step, content)
        self._said(asked, task.step, f"{len(content)} bytes were taken")

    def _leave(self, part: TakingPart, asked: RoundTask, error: BreachError) -> None:
        """Ends the session here; says who dealt wrong shares, if it was that."""
        was_in, self._open = self._open is not None, None
        if not was_in:  # it did not get in, and may be asked again and again
            self._say_once(asked, "left", f"Secure aggregation is refused: {error}")
        else:
            self._note_left(asked, str(error))
        if error.complaint:
            # Heard or not, this client is out; nothing else depends on it.
            with contextlib.suppress(RejectedError, RoundClosedError):
                self._send(part, asked, pb.COMPLAINT, error.complaint)
        self._means.pause(_PAUSE_S)

    def _note_left(self, asked: RoundTask, why: str) -> None:
        text = f"Round {asked.round_number + 1}: left secure aggregation. {why}"
        self._means.tell("left", text)
        self._means.audit.append("left", {**asked.facts, "why": why})

    def _send(
        self, part: TakingPart, asked: RoundTask, step: pb.SecureStep, content: bytes
    ) -> None:
        sha256 = hashlib.sha256(content).digest()
        header = self._header(part, asked, step, len(content), sha256)
        self._submit(part, asked, header, lambda: [content])

    def _submit(
        self, part: TakingPart, asked: RoundTask, header: pb.SubmitHeader, parts: Any
    ) -> None:
        self._means.patience.until_answered(
            lambda: self._means.calls.submit(
                part.run_id, asked.round_number, header, parts
            )
        )

    def _header(
        self,
        part: TakingPart,
        asked: RoundTask,
        step: pb.SecureStep,
        length: int,
        sha256: bytes,
    ) -> pb.SubmitHeader:
        head = self._means.audit.head()
        header = part.header(asked, head, num_bytes=length, sha256=sha256)
        header.step = step
        return header

    def _facts(
        self, part: TakingPart, asked: RoundTask, sha256: bytes
    ) -> dict[str, Any]:
        is_free = part.work.cost(asked) is None
        return {
            **asked.facts,
            "session": asked.session,
            "bytes": num_bytes(part.plan.contribution),
            "sha256": sha256.hex(),
            "spent": None if is_free else part.odometer.spent(),
            "ledger": part.odometer.head(),
        }

    def _has_contributed(self, asked: RoundTask) -> bool:
        return self._means.audit.last(what="sending", **asked.facts) is not None

    def _say_lost(self, asked: RoundTask) -> None:
        self._say_once(
            asked,
            "lost",
            f"Round {asked.round_number + 1} is added up without us: the secrets of "
            "its session are gone, as after a restart. The next session is joined.",
        )
        self._means.pause(_PAUSE_S)

    def _say_once(self, asked: RoundTask, what: str, text: str) -> None:
        told = (asked.name, what)
        if self._told != told:
            self._means.tell(what, text)
        self._told = told

    def _said(self, asked: RoundTask, step: pb.SecureStep, text: str) -> None:
        name = pb.SecureStep.Name(step)
        self._means.tell(
            "step", f"Round {asked.round_number + 1}: {name}: {text}.", step=name
        )


def _is_same_attempt(one: RoundTask, other: RoundTask) -> bool:
    return (one.round_number, one.attempt) == (other.round_number, other.attempt)


def _in_words(asked: RoundTask, parameters: Parameters) -> str:
    return (
        f"Round {asked.round_number + 1}: secure aggregation of "
        f"{parameters.num_clients} partners, of whom {parameters.threshold} open the "
        f"sum and at most {parameters.num_colluding} may work with the operator."
    )
