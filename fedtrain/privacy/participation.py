"""How far one client can move a correlated mechanism, given when it takes part.

Source: Choquette-Choo et al. (2023), (Amplified) banded matrix factorization,
https://arxiv.org/abs/2306.08153 (b-min-separation); the bound by rows of the Gram
matrix is theirs for factors whose columns have non-negative products.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Participation:
    """When one client may take part.

    Attributes:
      num_rounds: Rounds of the whole run.
      min_separation: Least number of rounds from one participation to the next.
      max_participations: Most rounds of one client; by default as many as fit.
    """

    num_rounds: int
    min_separation: int = 1
    max_participations: int | None = None

    def __post_init__(self) -> None:
        """Whole numbers of at least one."""
        validate.positive_integer(
            num_rounds=self.num_rounds,
            min_separation=self.min_separation,
            max_participations=self.most,
        )

    @property
    def most(self) -> int:
        """The most rounds that one client takes part in."""
        fitting = -(-self.num_rounds // self.min_separation)
        return min(self.max_participations or fitting, fitting)


def squared_sensitivity_of_one(gram: Matrix, pattern: Participation) -> float:
    """What one participation adds, at most, to the squared sensitivity.

    Args:
      gram: Products of the encoder's columns [rounds, rounds], none negative.
      pattern: ``k`` participations then have squared sensitivity at most ``k`` times
        the result, for any vectors of norm at most 1.
    """
    if np.any(gram < -1e-12):
        raise ConfigError("This bound needs columns with non-negative products.")
    if pattern.most == 1:
        return float(np.max(np.diag(gram)))
    separation = pattern.min_separation
    before = _best_so_far(gram, separation)
    after = _best_so_far(gram[::-1, ::-1], separation)[::-1, ::-1]
    rounds = range(len(gram))
    return max(
        gram[i, i]
        + (before[i, i - separation] if i >= separation else 0.0)
        + (after[i, i + separation] if i + separation < len(gram) else 0.0)
        for i in rounds
    )


def _best_so_far(gram: Matrix, separation: int) -> Matrix:
    """For each row, the best sum over separated columns up to each column."""
    best = np.zeros_like(gram)
    for column in range(len(gram)):
        taken = gram[:, column].copy()
        if column >= separation:
            taken += best[:, column - separation]
        skipped = best[:, column - 1] if column else 0.0
        best[:, column] = np.maximum(taken, skipped)
    return best
