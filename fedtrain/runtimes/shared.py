"""What only the chief does while all workers run the same training loop.

The chief has the ledger and the checkpoints. The others wait for it before each charged
round, and start from what it restored; so no disk has to be shared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtrain.core.errors import BudgetExhaustedError, FedtrainError, WorkerLostError
from fedtrain.core.mechanism import Mechanism
from fedtrain.data.cohorts import CohortSampler
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.rounds.checkpoint import Checkpoint, CheckpointStore, from_bytes, to_bytes
from fedtrain.rounds.round import ServerState
from fedtrain.runtimes.replicas import Replicas

_CHARGED = "charged "
_EXHAUSTED = "exhausted "
_FAILED = "failed "


@dataclass(frozen=True, kw_only=True)
class SharedPrivacy:
    """Charges each round once, at the chief, before any worker reads its data.

    Attributes:
      replicas: All workers.
      plan: The promise.
      mechanisms: Of the round that is run.
      sampler: That draws the cohorts.
      is_private: Whether the data is private.
      charges: The chief's; None elsewhere.
    """

    replicas: Replicas
    plan: PrivacyPlan
    mechanisms: tuple[Mechanism, ...]
    sampler: CohortSampler
    is_private: bool
    charges: RunPrivacy | None = None

    def before_round(
        self, round_number: int, cohort_ids: Sequence[str], input_hash: str
    ) -> float:
        """As ``RunPrivacy.before_round``; what the chief's says, all workers do."""
        if self.charges is None:
            return _epsilon(self.replicas.broadcast(b"").decode())
        try:
            epsilon = self.charges.before_round(round_number, cohort_ids, input_hash)
        except FedtrainError as error:
            known = isinstance(error, BudgetExhaustedError)
            self.replicas.broadcast((_EXHAUSTED if known else _FAILED).encode())
            raise
        self.replicas.broadcast(f"{_CHARGED}{epsilon!r}".encode())
        return epsilon

    def spent_so_far(self) -> float | None:
        """At the chief; None elsewhere."""
        return None if self.charges is None else self.charges.spent_so_far()

    def head(self) -> Mapping[str, Any] | None:
        """The chief's ledger's length and head hash; None elsewhere."""
        return None if self.charges is None else self.charges.head()

    def expect(self, head: Mapping[str, Any]) -> None:
        """Raises LedgerError, at the chief, if the ledger lost what ``head`` says."""
        if self.charges is not None:
            self.charges.expect(head)


class SharedCheckpoints:
    """The chief's checkpoints, from which all workers start.

    Args:
      replicas: All workers.
      store: The chief's; None elsewhere.
    """

    def __init__(self, replicas: Replicas, store: CheckpointStore | None) -> None:
        self._replicas = replicas
        self._store = store

    def latest(self, like: ServerState) -> Checkpoint:
        """The chief's newest checkpoint; before the first, its state ``like``.

        Weights that two kinds of processor draw from one seed may differ in their last
        bits, so also a new run starts from the chief's.
        """
        own = None
        if self._store is not None:
            own = self._store.latest(like) or Checkpoint(0, like, {}, None)
        content = self._replicas.broadcast(to_bytes(own) if own else b"")
        return own or from_bytes(content, like, name="the chief's state")

    def is_due(self, round_number: int, num_rounds: int) -> bool:
        """Whether this worker writes a checkpoint after ``round_number`` rounds."""
        return self._store is not None and self._store.is_due(round_number, num_rounds)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes ``checkpoint`` at the chief; elsewhere nothing is ever due."""
        if self._store is not None:
            self._store.save(checkpoint)


def _epsilon(verdict: str) -> float:
    if verdict.startswith(_CHARGED):
        return float(verdict.removeprefix(_CHARGED))
    if verdict.startswith(_EXHAUSTED):
        raise BudgetExhaustedError(
            "The chief's privacy budget allows no further round."
        )
    raise WorkerLostError("The chief could not charge the round; see what it says.")
