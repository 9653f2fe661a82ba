"""The next cohort is drawn, read and packed while this one trains.

It changes nothing but time: what a round computes is the same with and without it. A
round that the ledger cannot afford is not read.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from fedtrain.core import seeds
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.privacy.run_privacy import Later
from fedtrain.rounds.round import Round
from fedtrain.rounds.runtime import AdaptiveRuntime, CohortClient, Runtime


@runtime_checkable
class LooksAhead(Protocol):
    """A keeper of the ledger that knows about rounds to come, as ``RunPrivacy``."""

    def can_afford(self, round_number: int, cohort_ids: Sequence[str]) -> bool:
        """Whether the round could be charged, by what is known now."""
        ...

    def reserve(self, round_number: int, later: Later) -> None:
        """Charges some rounds from this one on in one go, where that is wanted."""
        ...


class DrawnRun(Protocol):
    """The parts of a run that say who takes part; ``TrainingRun`` describes them."""

    @property
    def round_(self) -> Round:
        """What one round is."""
        ...

    @property
    def dataset(self) -> FederatedDataset:
        """The population."""
        ...

    @property
    def sampler(self) -> CohortSampler:
        """Who takes part in a round."""
        ...

    @property
    def runtime(self) -> Runtime:
        """Who carries a round out."""
        ...

    @property
    def num_rounds(self) -> int:
        """Rounds in all."""
        ...

    @property
    def seed(self) -> seeds.HostSeed:
        """The run's seed."""
        ...

    @property
    def privacy(self) -> Any:
        """Charges the ledger; None without privacy."""
        ...


class DrawnCohort(NamedTuple):
    """Who takes part in a round; their rows are not read yet.

    Attributes:
      round_number: From 0.
      positions: Sorted positions in the population.
      client_ids: Their names.
      seed: The round's.
    """

    round_number: int
    positions: Any
    client_ids: Sequence[str]
    seed: seeds.HostSeed


def draw(run: DrawnRun, round_number: int) -> DrawnCohort:
    """Draws the cohort of a round; it depends on the run's seed and the number only."""
    positions = run.sampler.sample(
        run.dataset.num_clients,
        seeds.derive(run.seed, "cohort", round_number),
        round_number,
    )
    return DrawnCohort(
        round_number,
        positions,
        run.dataset.client_ids_at(positions),
        seeds.derive(run.seed, "round", round_number),
    )


class ReadingAhead:
    """One background thread that reads and packs the next cohort.

    What goes wrong there is raised by ``rows`` of the round that it belongs to. When
    the ``with`` block is left, in whatever way, the thread has ended.
    """

    def __init__(self, run: DrawnRun) -> None:
        """Nothing is read ahead where ``run.runtime`` cannot make use of it."""
        self._run = run
        self._thread: ThreadPoolExecutor | None = None
        self._drawn: DrawnCohort | None = None
        self._rows: Future[list[CohortClient]] | None = None

    def __enter__(self) -> Self:
        """Starts no thread yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the thread to end."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def drawn(self, round_number: int) -> DrawnCohort:
        """The cohort of a round."""
        if self._drawn is None or self._drawn.round_number != round_number:
            self._drawn, self._rows = draw(self._run, round_number), None
        return self._drawn

    def rows(self, drawn: DrawnCohort) -> list[CohortClient]:
        """The clients of a round with their rows, and without what they kept."""
        if self._rows is None:
            return _read(self._run, drawn)
        reading, self._rows = self._rows, None
        return reading.result()

    def start(self, round_number: int) -> None:
        """Has the cohort of a round read, if there is one and it can be afforded."""
        runtime, privacy = self._run.runtime, self._run.privacy
        if round_number >= self._run.num_rounds:
            return
        if not isinstance(runtime, AdaptiveRuntime):
            return
        drawn = self.drawn(round_number)
        if privacy is not None and not _can_afford(privacy, drawn):
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "fedtrain-read-ahead")
        self._rows = self._thread.submit(_read_and_pack, self._run, runtime, drawn)


def _can_afford(privacy: Any, drawn: DrawnCohort) -> bool:
    return isinstance(privacy, LooksAhead) and privacy.can_afford(
        drawn.round_number, drawn.client_ids
    )


def _read_and_pack(
    run: DrawnRun, runtime: AdaptiveRuntime, drawn: DrawnCohort
) -> list[CohortClient]:
    clients = _read(run, drawn)
    runtime.prepare(run.round_, clients, drawn.seed)
    return clients


def _read(run: DrawnRun, drawn: DrawnCohort) -> list[CohortClient]:
    """Empty clients are left out where that reveals nothing.

    A client that adds its own noise adds it for no rows too: leaving it out would tell
    that it has none.
    """
    adds_noise = any(each.trust != "central" for each in run.round_.mechanisms)
    keep_empty = adds_noise or bool(run.round_.client_work.mechanisms)
    rows = run.dataset.clients(drawn.positions)
    return [
        CohortClient(client_id, examples, ())
        for client_id, examples in zip(drawn.client_ids, rows, strict=True)
        if examples.num_examples or keep_empty
    ]
