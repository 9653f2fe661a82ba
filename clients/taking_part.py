"""What an agent has in hand while it takes part in a run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from clients.calls import Calls
from clients.patience import Patience
from clients.work import Cost, RoundTask, Work
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import Array, from_bytes, num_bytes
from fedtrain.wire.plan import Plan


class Odometer(Protocol):
    """Counts what the rows have spent; see ``clients.odometer``."""

    def check(self, task: RoundTask, cost: Cost, *, max_epsilon: float) -> None:
        """Refuses what ``charge`` would refuse."""

    def charge(self, task: RoundTask, cost: Cost, *, max_epsilon: float) -> None:
        """Writes down what an answer spends."""

    def spent(self) -> dict[str, Any]:
        """Epsilon so far, with its terms."""

    def head(self) -> dict[str, Any]:
        """How long the ledger is."""

    def expect(self, head: Mapping[str, Any]) -> None:
        """Refuses a ledger that lost its end."""


class TakingPart(NamedTuple):
    """One run, with what the partner brings to it.

    Attributes:
      run_id: The run.
      plan: That the partner has approved.
      work: On its rows.
      odometer: Of its rows.
    """

    run_id: str
    plan: Plan
    work: Work
    odometer: Odometer

    def broadcast(
        self, task: pb.Task, *, calls: Calls, patience: Patience
    ) -> Sequence[Array]:
        """What ``task`` starts from, fetched until it is there."""
        specs = self.plan.broadcast
        received = patience.until_answered(
            lambda: calls.fetch(self.run_id, task, num_bytes=num_bytes(specs))
        )
        return from_bytes(specs, received)

    def header(
        self,
        asked: RoundTask,
        head: Mapping[str, Any],
        *,
        num_bytes: int,
        sha256: bytes,
    ) -> pb.SubmitHeader:
        """What goes before an answer, and is signed: with the audit log's ``head``."""
        return pb.SubmitHeader(
            attempt=asked.attempt,
            kind=pb.TRAIN if asked.kind == "train" else pb.EVALUATE,
            num_bytes=num_bytes,
            sha256=sha256,
            plan_sha256=bytes.fromhex(self.plan.sha256),
            audit_length=head["length"],
            audit_sha256=bytes.fromhex(head["hash"]),
        )
