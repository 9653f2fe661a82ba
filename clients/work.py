"""What an agent asks of whoever computes: the price of a round, and its answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from fedtrain.core.errors import FedtrainError
from fedtrain.core.mechanism import Unit
from fedtrain.wire.arrays import Array


class NoAnswerError(FedtrainError):
    """There is no answer to this attempt at a round, and never will be."""


class RoundTask(NamedTuple):
    """One thing the aggregator asks for, as far as it is known before the broadcast.

    Attributes:
      run_id: The run.
      round_number: From 0.
      attempt: From 0; another attempt draws other noise, and is charged by itself.
      kind: To train, or to evaluate.
      broadcast_sha256: Of the broadcast's bytes, in hexadecimal.
      info: Public facts of the round.
      session: Of secure aggregation, in hexadecimal: another session draws other noise,
        and is charged by itself. Empty without one.
    """

    run_id: str
    round_number: int
    attempt: int
    kind: Literal["train", "evaluate"]
    broadcast_sha256: str
    info: Mapping[str, Any]
    session: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What the audit log calls it."""
        return {
            "run": self.run_id,
            "round": self.round_number,
            "attempt": self.attempt,
            "kind": self.kind,
            "broadcast": self.broadcast_sha256,
        }

    @property
    def name(self) -> str:
        """What files about it are called."""
        return f"{self.run_id}.{self.round_number}.{self.attempt}.{self.kind}"


class Cost(NamedTuple):
    """What one unit of this partner's data spends when an answer leaves.

    Attributes:
      unit: Whose privacy the events speak of.
      counts: As ``fedtrain.privacy.events.counted`` gives them.
      noise: Names the noise that pays for it: other noise is another charge. Empty
        where the task alone decides the answer.
      most: How many answers of this kind the plan's epsilon counts in a run; None where
        it counts none.
    """

    unit: Unit
    counts: Mapping[Any, int]
    noise: str = ""
    most: int | None = None


class Work(Protocol):
    """A plan's work on one partner's rows. It charges nothing and sends nothing.

    Attributes:
      kept: What it keeps between rounds, and never sends. The agent sets it before
        ``compute``, which may change it, and stores it together with the answer; empty
        before the first round, and where nothing is kept.
    """

    kept: bytes

    @property
    def num_examples(self) -> int | None:
        """How many rows there are; None for a sum of others' contributions."""

    def cost(self, task: RoundTask) -> Cost | None:
        """What the answer to ``task`` spends; None if it tells nothing of the rows."""

    def compute(self, task: RoundTask, broadcast: Sequence[Array]) -> Sequence[Array]:
        """The answer, as arrays in the order of the plan.

        Args:
          task: What is asked for.
          broadcast: As received, in the plan's order; views that must not be changed.

        Raises:
          NoAnswerError: If there is none; only under secure aggregation.
        """

    def forget(self) -> None:
        """Deletes what could repeat the noise of an answer: the run has ended."""
