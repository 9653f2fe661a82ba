"""What an agent asks of a connection: five calls, and what each failure means to it."""

from collections.abc import Callable, Iterable
from typing import Protocol

from fedtrain.core.errors import FedtrainError, IdentityError, StoppedError
from fedtrain.wire import messages_pb2 as pb


class UnreachableError(FedtrainError):
    """No answer, or a broken one: worth trying again.

    Attributes:
      wait_s: What the other side asked to wait; None where it said nothing.
    """

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class RoundClosedError(FedtrainError):
    """The round has closed, or goes on without this client: ask for the next task."""


class RejectedError(FedtrainError):
    """The answer was received and will not be taken; the same bytes never will be."""


class RefusedError(IdentityError):
    """The aggregator does not accept who asks."""


class Calls(Protocol):
    """One connection to the aggregator. Every call raises the errors above."""

    def hello(self) -> pb.HelloReply:
        """The plan and the run that are served."""

    def next_task(
        self, run_id: str, *, plan_sha256: str, status: str, wait_ms: int
    ) -> pb.Task:
        """What there is to do; waits up to ``wait_ms`` for it."""

    def fetch(self, run_id: str, task: pb.Task, *, num_bytes: int) -> bytearray:
        """The broadcast of ``task``: as long as the plan says, with the task's hash."""

    def submit(
        self,
        run_id: str,
        round_number: int,
        header: pb.SubmitHeader,
        parts: Callable[[], Iterable[bytes]],
    ) -> None:
        """Hands in an answer; returns once the aggregator has it on its disk."""

    def renew(self, request_pem: str) -> str:
        """A new certificate for the key in ``request_pem``."""

    def reconnect(self) -> None:
        """Forgets the connection: the next call resolves and connects anew."""


# A damaged answer may be the network's doing, so the same bytes are sent once more.
_WORTH_REPEATING: dict[int, str] = {
    pb.BUSY: "is busy",
    pb.MALFORMED: "received a damaged request",
}
_CLOSED = {pb.LATE, pb.NOT_INVITED}
_NEVER = {pb.WRONG_SHAPE, pb.NON_FINITE, pb.CONFLICT}
_OTHER_PLAN = {pb.WRONG_PLAN, pb.WRONG_VERSION}


def raise_for(code: int, text: str, *, wait_ms: int = 0) -> None:
    """Raises what ``code`` means to the agent; nothing where the call succeeded."""
    if code in (pb.ACCEPTED, pb.DUPLICATE):
        return
    said = f"{_name(code)}: {printable(text)}"
    if code in _CLOSED:
        raise RoundClosedError(said)
    if code in _NEVER:
        raise RejectedError(said)
    if code == pb.REFUSED:
        raise RefusedError(f"The aggregator refuses this client. {said}")
    if code in _OTHER_PLAN:
        raise StoppedError(
            f"The aggregator serves something else now. {said}. Ask the operator for "
            "a new invitation, and review and approve it."
        )
    why = _WORTH_REPEATING.get(code, f"answered {_name(code)}")
    raise UnreachableError(
        f"The aggregator {why}: {printable(text)}", wait_s=wait_ms / 1000 or None
    )


def printable(text: str) -> str:
    """What a stranger wrote, on one line that cannot move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text[:500]).strip()


def _name(code: int) -> str:
    return pb.Code.Name(code) if code in pb.Code.values() else f"code {code}"
