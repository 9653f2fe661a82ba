"""What an agent has in hand while it takes part in a run."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from clients.work import Cost, RoundTask, Work
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
