"""Sums of whole numbers over private rows, noised and paid for before a row is read.

Each row gives a vector of whole numbers of bounded length, such as whether each of
several models is right about it. A unit's effect on the sum is bounded by that length
times the rows of it that count. The noise is Gaussian, rounded down to whole numbers:
as the sum is whole, that equals rounding the noised sum down, which is post-processing
of the Gaussian mechanism, so its privacy loss distribution is the accountant's.
The noise comes from the operating system's randomness, without floating point.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import KeyStream, WordSource, new_key
from fedtrain.privacy.account import Account
from fedtrain.privacy.staircase import draws, staircase

Integers = npt.NDArray[np.int64]
NOISE_SOURCE = (
    "Gaussian noise from a cryptographic stream under a key of the operating system, "
    "rounded down to whole numbers exactly"
)
_STEPS_BITS = 8


@dataclass(frozen=True, kw_only=True)
class CountsQuery:
    """What is asked of every row.

    Attributes:
      name: What is released, for the ledger.
      squared_norm: A row's vector has at most this squared L2 length; a longer one
        counts as zero.
      rows_per_unit: Rows of one entity or client that count: its first ones.
      noise_multiplier: Noise on a sum over what one unit moves it.
    """

    name: str
    squared_norm: int
    rows_per_unit: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        """Everything is above zero."""
        validate.positive_integer(
            squared_norm=self.squared_norm, rows_per_unit=self.rows_per_unit
        )
        validate.positive(noise_multiplier=self.noise_multiplier)

    @property
    def sensitivity(self) -> float:
        """How far adding or removing one unit moves the sums, in L2."""
        return self.rows_per_unit * math.sqrt(self.squared_norm)

    @property
    def variance(self) -> Fraction:
        """Of the noise on each sum of one party, exactly."""
        bound = self.squared_norm * self.rows_per_unit**2
        return Fraction(self.noise_multiplier) ** 2 * bound


class UnitRows(NamedTuple):
    """Private rows as vectors, and whose they are.

    Attributes:
      vectors: Integer arrays [some rows, sums], one after another.
      units: Integer [rows]: rows of one unit share a number; None where a row is one.
      parties: Integer [rows], from 0: who sums and noises a row.
      num_parties: Parties there are; one without rows adds its noise too.
    """

    vectors: Iterable[npt.NDArray[Any]]
    units: npt.NDArray[Any] | None
    parties: npt.NDArray[Any]
    num_parties: int


class NoisedCounts(NamedTuple):
    """What may be seen.

    Attributes:
      sums: Float64 [sums], without the bias of rounding down.
      stddev: Of the noise on each.
    """

    sums: npt.NDArray[np.float64]
    stddev: float


def paid_counts(
    query: CountsQuery,
    rows: Callable[[], UnitRows],
    *,
    account: Account,
    source: WordSource | None = None,
) -> NoisedCounts:
    """Noised sums, charged to every unit before the rows are read.

    Args:
      query: What is asked.
      rows: Gives the rows; not called before the charge is on disk.
      account: Who pays.
      source: Of random words; by default under a new key from the operating system.

    Raises:
      BudgetExhaustedError: If the charge would pass the budget; nothing is read.
    """
    account.charge(query.name, query.noise_multiplier)
    given = rows()
    if account.trust != "local" and given.num_parties != 1:
        raise ConfigError(f"trust is {account.trust!r}: one party sums and noises.")
    return noised_counts(
        query,
        given,
        most_parties=account.max_clients_per_entity,
        source=source or KeyStream(new_key()),
    )


def noised_counts(
    query: CountsQuery, given: UnitRows, *, most_parties: int, source: WordSource
) -> NoisedCounts:
    """Noised sums, for which whoever calls this has paid.

    Args:
      query: What is asked.
      given: The rows; each of their parties adds the whole noise.
      most_parties: Of one unit's parties, as many count.
      source: Of random words.
    """
    sums = _sums(given, _counting(given, query, most_parties), query.squared_norm)
    noise = _noise(query.variance, sums.size, source)
    total = (sums + noise.reshape(sums.shape)).sum(axis=0)
    stddev = math.sqrt(query.variance * given.num_parties)
    return NoisedCounts(total + 0.5 * given.num_parties, stddev)


def _sums(
    given: UnitRows, counting: npt.NDArray[np.bool_], squared_norm: int
) -> Integers:
    """Exact sums of each party, int64 [parties, sums]."""
    total: Any = None
    start = 0
    for part in given.vectors:
        vectors = np.asarray(part, np.int64)
        places = slice(start, start + len(vectors))
        start = places.stop
        bounded = _bounded(vectors, squared_norm)
        if total is None:
            total = np.zeros((given.num_parties, vectors.shape[1]), np.int64)
        kept = counting[places] & bounded
        np.add.at(total, given.parties[places][kept], vectors[kept])
    if total is None:
        raise ConfigError("Rows to count need at least one array of vectors.")
    return np.asarray(total)


def _bounded(vectors: Integers, squared_norm: int) -> npt.NDArray[np.bool_]:
    """Whose squared norm is within the bound; no square of them may wrap."""
    most = math.isqrt(squared_norm)
    small = np.all((vectors >= -most) & (vectors <= most), axis=1)
    return small & (np.einsum("ij,ij->i", vectors, vectors) <= squared_norm)


def _counting(
    given: UnitRows, query: CountsQuery, most_parties: int
) -> npt.NDArray[np.bool_]:
    """Each party's first rows of a unit, at the first parties of that unit."""
    num_rows = len(given.parties)
    if given.units is None:
        return np.ones(num_rows, bool)
    _, units = np.unique(given.units, return_inverse=True)
    pairs, places = np.unique(
        np.stack([units.reshape(-1), given.parties]), axis=1, return_inverse=True
    )
    places = places.reshape(-1)
    return (_rank(places) < query.rows_per_unit) & (
        _rank(pairs[0])[places] < most_parties
    )


def _rank(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many of the same group come before each."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - starts
    return rank


def _noise(variance: Fraction, num: int, source: WordSource) -> Integers:
    """The floor of independent Gaussian numbers."""
    bits = max((int(variance).bit_length() - 1) // 2 - _STEPS_BITS, 0)
    ratio = Fraction(1 << 2 * bits) / variance
    return draws(staircase(ratio, bits, is_continuous=True), num, source)
