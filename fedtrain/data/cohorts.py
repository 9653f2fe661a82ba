"""Which clients take part in a round, and what that may claim for privacy.

The sampler draws the cohort and describes the draw to the accountant, so amplification
can only be claimed by the sampler that earns it: Poisson sampling at a public constant
rate, with a cohort that nobody outside the aggregator sees.

Source: Abadi et al. (2016), Deep learning with differential privacy (Poisson);
Choquette-Choo et al. (2023), (Amplified) banded matrix factorization (participation).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import dp_accounting
import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds, validate
from fedtrain.core.errors import ConfigError

Positions = npt.NDArray[np.int64]


class CohortSampler(Protocol):
    """Which clients take part in a round.

    Attributes:
      name: For messages and reports.
      min_separation: Least number of rounds from one participation to the next; 1 when
        a client may take part in consecutive rounds.
      amplifies: Whether ``dp_event`` claims amplification by sampling.
      amplification: Sentence for the privacy report: what is claimed, and why.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - attributes are described above

    @property
    def min_separation(self) -> int: ...  # noqa: D102

    @property
    def amplifies(self) -> bool: ...  # noqa: D102

    @property
    def amplification(self) -> str: ...  # noqa: D102

    def sample(self, num_clients: int, seed: seeds.Seed, round_number: int) -> Any:
        """Sorted positions (int64) of the clients of round ``round_number``."""
        ...

    def expected_cohort_size(self, num_clients: int) -> float:
        """The public denominator: the expected number of clients in a cohort."""
        ...

    def dp_event(self, event: Any, num_rounds: int) -> Any:
        """What one client suffers from ``num_rounds`` rounds of ``event``, at most."""
        ...

    def max_participations(self, num_rounds: int) -> int:
        """The most rounds out of ``num_rounds`` that one client can take part in."""
        ...


@dataclass(frozen=True, kw_only=True)
class UniformSampler:
    """``cohort_size`` different clients, all sets equally likely, afresh each round."""

    cohort_size: int
    name: str = "uniform"
    min_separation: int = 1
    amplifies: bool = False
    amplification: str = (
        "No amplification claimed: cohorts of a fixed size are drawn uniformly, and "
        "every round that a client takes part in counts in full."
    )

    def __post_init__(self) -> None:
        """The size is positive."""
        validate.positive_integer(cohort_size=self.cohort_size)

    def sample(
        self, num_clients: int, seed: seeds.Seed, round_number: int
    ) -> Positions:
        """Sorted positions of ``cohort_size`` clients."""
        _refuse_larger_than(num_clients, self.cohort_size)
        random = _generator(seed, round_number)
        return np.sort(random.choice(num_clients, self.cohort_size, replace=False))

    def expected_cohort_size(self, num_clients: int) -> float:
        """The cohort size."""
        _refuse_larger_than(num_clients, self.cohort_size)
        return float(self.cohort_size)

    def dp_event(self, event: Any, num_rounds: int) -> Any:
        """``event`` in every round."""
        return dp_accounting.SelfComposedDpEvent(event, num_rounds)

    def max_participations(self, num_rounds: int) -> int:
        """Every round, at worst."""
        return num_rounds


@dataclass(frozen=True, kw_only=True)
class PoissonSampler:
    """Each client independently with probability ``sampling_rate``.

    Attributes:
      sampling_rate: In (0, 1]; a public constant, never a size over a private count.
      cohort_is_hidden: Whether nobody but a trusted aggregator learns who takes part.
        Only then is amplification claimed.
    """

    sampling_rate: float
    cohort_is_hidden: bool = False
    name: str = "poisson"
    min_separation: int = 1

    def __post_init__(self) -> None:
        """The rate is in (0, 1]."""
        validate.fraction(sampling_rate=self.sampling_rate)

    @property
    def amplifies(self) -> bool:
        """Only where the cohort is hidden."""
        return self.cohort_is_hidden and self.sampling_rate < 1.0

    @property
    def amplification(self) -> str:
        """What is claimed, and why."""
        if self.amplifies:
            return (
                "Amplification claimed: clients are Poisson-sampled at the public rate "
                f"{self.sampling_rate:g} and the cohort is hidden from everyone but "
                "the aggregator."
            )
        return (
            "No amplification claimed: the cohort of a round may be seen from outside "
            "(cohort_is_hidden is false)."
        )

    def sample(
        self, num_clients: int, seed: seeds.Seed, round_number: int
    ) -> Positions:
        """Sorted positions; the cohort may be empty and is still a round."""
        random = _generator(seed, round_number)
        taken = random.random(num_clients) < self.sampling_rate
        return np.flatnonzero(taken).astype(np.int64)

    def expected_cohort_size(self, num_clients: int) -> float:
        """``sampling_rate`` times the population."""
        return self.sampling_rate * num_clients

    def dp_event(self, event: Any, num_rounds: int) -> Any:
        """``event`` in every round, sampled where the cohort is hidden."""
        if self.amplifies:
            event = dp_accounting.PoissonSampledDpEvent(self.sampling_rate, event)
        return dp_accounting.SelfComposedDpEvent(event, num_rounds)

    def max_participations(self, num_rounds: int) -> int:
        """Every round, at worst."""
        return num_rounds


@dataclass(frozen=True, kw_only=True)
class FullParticipation:
    """Every client in every round."""

    name: str = "full"
    min_separation: int = 1
    amplifies: bool = False
    amplification: str = "No amplification claimed: every client is in every round."

    def sample(
        self, num_clients: int, seed: seeds.Seed, round_number: int
    ) -> Positions:
        """All positions."""
        del seed, round_number
        return np.arange(num_clients, dtype=np.int64)

    def expected_cohort_size(self, num_clients: int) -> float:
        """The population."""
        return float(num_clients)

    def dp_event(self, event: Any, num_rounds: int) -> Any:
        """``event`` in every round."""
        return dp_accounting.SelfComposedDpEvent(event, num_rounds)

    def max_participations(self, num_rounds: int) -> int:
        """Every round."""
        return num_rounds


@dataclass(frozen=True, kw_only=True)
class CyclicSampler:
    """Groups of clients take turns; a cohort is drawn from the group whose turn it is.

    The groups are fixed (they depend on the population's size alone, so a restart or
    another seed cannot change them), hence a client's participations lie at least
    ``min_separation`` rounds apart: what correlated noise relies on.
    """

    cohort_size: int
    min_separation: int
    name: str = "cyclic"
    amplifies: bool = False
    amplification: str = (
        "No amplification claimed: clients take turns in a fixed cyclic order."
    )

    def __post_init__(self) -> None:
        """Sizes are positive."""
        validate.positive_integer(
            cohort_size=self.cohort_size, min_separation=self.min_separation
        )

    def sample(
        self, num_clients: int, seed: seeds.Seed, round_number: int
    ) -> Positions:
        """Sorted positions of ``cohort_size`` clients of this round's group."""
        self._refuse_small_population(num_clients)
        order = _fixed_order(num_clients)
        group = order[round_number % self.min_separation :: self.min_separation]
        random = _generator(seed, round_number)
        return np.sort(random.choice(group, self.cohort_size, replace=False))

    def expected_cohort_size(self, num_clients: int) -> float:
        """The cohort size."""
        self._refuse_small_population(num_clients)
        return float(self.cohort_size)

    def dp_event(self, event: Any, num_rounds: int) -> Any:
        """``event`` in every round whose turn it is."""
        times = self.max_participations(num_rounds)
        return dp_accounting.SelfComposedDpEvent(event, times)

    def max_participations(self, num_rounds: int) -> int:
        """One in ``min_separation`` rounds."""
        return -(-num_rounds // self.min_separation)

    def _refuse_small_population(self, num_clients: int) -> None:
        group = num_clients // self.min_separation
        if self.cohort_size > group:
            raise ConfigError(
                f"cohort_size is {self.cohort_size}, but {num_clients} clients that "
                f"take part every {self.min_separation} rounds at most give groups of "
                f"{group}. Lower cohort_size to at most {group}, or min_separation."
            )


def uniform_sampler(*, cohort_size: int) -> UniformSampler:
    """``cohort_size`` clients, uniformly without replacement; no amplification."""
    return UniformSampler(cohort_size=cohort_size)


def poisson_sampler(
    *, sampling_rate: float, cohort_is_hidden: bool = False
) -> PoissonSampler:
    """Each client with probability ``sampling_rate``; amplifies a hidden cohort."""
    return PoissonSampler(
        sampling_rate=sampling_rate, cohort_is_hidden=cohort_is_hidden
    )


def full_participation() -> FullParticipation:
    """Every client in every round."""
    return FullParticipation()


def cyclic_sampler(*, cohort_size: int, min_separation: int) -> CyclicSampler:
    """Clients take turns, at least ``min_separation`` rounds apart."""
    return CyclicSampler(cohort_size=cohort_size, min_separation=min_separation)


@lru_cache(maxsize=1)
def _fixed_order(num_clients: int) -> Positions:
    order = _generator(seeds.root(0), 0).permutation(num_clients)
    order.flags.writeable = False
    return order


def _generator(seed: seeds.Seed, round_number: int) -> np.random.Generator:
    return seeds.generator(seeds.derive(seed, "cohort", round_number))


def _refuse_larger_than(num_clients: int, cohort_size: int) -> None:
    if cohort_size > num_clients:
        raise ConfigError(
            f"cohort_size is {cohort_size}, but the population has only {num_clients} "
            f"clients; use at most {num_clients}, or full_participation()."
        )
