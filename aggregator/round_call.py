"""What the training thread asks of a cohort, and what it gets."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aggregator.round_state import Kind
from aggregator.secure_terms import SecureTerms
from aggregator.spool import added_up, mapped
from fedtrain.core import validate
from fedtrain.core.errors import ConfigError
from fedtrain.wire.arrays import Array, ArraySpec


class RoundCall(NamedTuple):
    """What one round asks of its cohort.

    Attributes:
      run_id: The run's name.
      round_number: From 0.
      kind: "train" or "evaluate".
      cohort: Invited client ids, in the order of the sum.
      report_goal: It closes as soon as so many contributions are in.
      least_reports: With fewer at a deadline, another deadline begins.
      deadline_s: Length of a deadline.
      max_deadlines: After so many with too few contributions the run stops.
      broadcast: Arrays that every client receives.
      contribution: What each client sends.
      info: Public facts for the clients: plain values.
      before_attempt: Called with an attempt's number before anybody is asked for it; if
        it raises, nobody is.
      secure: The terms of secure aggregation; None where contributions come as they
        are.
      attempt: That of the aggregator above, which is made here once; None counts those
        that are made here.
    """

    run_id: str
    round_number: int
    kind: Kind
    cohort: tuple[str, ...]
    report_goal: int
    least_reports: int
    deadline_s: float
    max_deadlines: int
    broadcast: Sequence[Array]
    contribution: Sequence[ArraySpec]
    info: Mapping[str, Any]
    before_attempt: Callable[[int], None] = lambda attempt: None
    secure: SecureTerms | None = None
    attempt: int | None = None

    def check(self, run_id: str) -> None:
        """Raises ConfigError unless the call makes sense in the run ``run_id``."""
        validate.positive_integer(
            least_reports=self.least_reports, max_deadlines=self.max_deadlines
        )
        validate.positive(deadline_s=self.deadline_s)
        validate.one_of({"train", "evaluate"}, kind=self.kind)
        if self.run_id != run_id:
            raise ConfigError(f"run_id must be {run_id!r}, got {self.run_id!r}.")
        if len(set(self.cohort)) != len(self.cohort):
            raise ConfigError("cohort names a client twice; its sum would, too.")
        if not self.least_reports <= self.report_goal <= len(self.cohort):
            raise ConfigError(
                "least_reports <= report_goal <= number of clients in the cohort must "
                f"hold, got {self.least_reports}, {self.report_goal} and "
                f"{len(self.cohort)}."
            )


class Collected(NamedTuple):
    """The contributions of one round, on the disk.

    Attributes:
      attempt: The one that succeeded, from 0.
      accepted: Clients whose contributions are in, in the order of the cohort.
      lost: Why each other client's is not.
      paths: Files with the hashes of their content, in the order of ``accepted``; with
        secure aggregation a single one, which holds their sum.
      contribution: What is in each of them.
    """

    attempt: int
    accepted: tuple[str, ...]
    lost: Mapping[str, str]
    paths: tuple[tuple[Path, str], ...]
    contribution: tuple[ArraySpec, ...]

    def total(self) -> list[Array]:
        """The sum in the order of the cohort; memory is one sum and a megabyte.

        Raises:
          JournalError: If the disk has damaged a contribution since.
        """
        return added_up(self.paths, self.contribution)

    def each(self) -> list[list[Array]]:
        """What is in each file, as memory maps that cannot be written to."""
        return [mapped(path, self.contribution) for path, _ in self.paths]
