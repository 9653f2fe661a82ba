"""What the training loop asks of whoever keeps the ledger and the checkpoints.

``RunPrivacy`` and ``CheckpointStore`` are the keepers of a run in one process; where
several workers run the same loop, one of them keeps for all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from fedtrain.core.mechanism import Mechanism
from fedtrain.data.cohorts import CohortSampler
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.rounds.checkpoint import Checkpoint
from fedtrain.rounds.round import ServerState


class Charges(Protocol):
    """Says before each round whether it may run, and what it costs."""

    @property
    def plan(self) -> PrivacyPlan:
        """The promise."""
        ...

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """Of the round that is run."""
        ...

    @property
    def sampler(self) -> CohortSampler:
        """That draws the cohorts."""
        ...

    @property
    def is_private(self) -> bool:
        """Whether the data is private."""
        ...

    def before_round(
        self, round_number: int, cohort_ids: Sequence[str], input_hash: str
    ) -> float:
        """Charges a round; returns the epsilon spent once it has run."""
        ...

    def spent_so_far(self) -> float | None:
        """Epsilon with what was charged since, such as scores; None if not known."""
        ...

    def head(self) -> Mapping[str, Any] | None:
        """The ledger's length and head hash, for checkpoints."""
        ...

    def expect(self, head: Mapping[str, Any]) -> None:
        """Raises LedgerError if the ledger lost what a checkpoint remembers."""
        ...


@runtime_checkable
class AsksAgain(Protocol):
    """A runtime that may ask a round's clients more than once, and pays each time.

    Attributes:
      charges: Who charges what is asked again; the loop charges the first time.
    """

    charges: Charges | None


class Checkpoints(Protocol):
    """Where rounds are saved, and resumed from."""

    def latest(self, like: ServerState) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None if none was ever saved."""
        ...

    def is_due(self, round_number: int, num_rounds: int) -> bool:
        """Whether a checkpoint belongs after ``round_number`` rounds."""
        ...

    def save(self, checkpoint: Checkpoint) -> object:
        """Saves ``checkpoint`` durably."""
        ...
