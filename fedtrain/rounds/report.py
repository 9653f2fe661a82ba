"""What one round leaves behind for a reader: numbers, not weights."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedtrain.rounds.round import ServerState


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """What one round leaves behind.

    Attributes:
      round_number: From 0.
      metrics: Means over the cohort (``loss``, ``accuracy``, ...) and, where the round
        was evaluated, of the evaluation (``test_loss``, ``test_accuracy``, ...).
      cohort_size: Clients that were asked; None where that is withheld.
      lost_clients: Clients whose contribution is not in the sum; None where withheld.
      skipped_clients: Clients without rows; None where withheld.
      seconds: Wall time of the round.
      spent_epsilon: Epsilon spent so far at the plan's delta; None without privacy.
    """

    round_number: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    cohort_size: int | None = 0
    lost_clients: tuple[str, ...] | None = ()
    skipped_clients: int | None = 0
    seconds: float = 0.0
    spent_epsilon: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


OnRound = Callable[[RoundReport, ServerState], None]
