"""When scores no longer improve: the round that was best, and whether to go on.

Source: Prechelt (1998), Early stopping - but when? (stopping by patience).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fedtrain.core import validate
from fedtrain.models.model import ModelWeights

# What of a score's name says that less is better.
_ERRORS = ("loss", "error", "brier")


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """What is watched, and for how long it may fail to improve.

    Attributes:
      metric: Its name in the rounds' reports, such as ``"test_accuracy"``.
      patience: The run ends after so many evaluations in a row without a better one;
        None never ends it and only keeps the best weights.
      min_delta: A score is better only if it is so by more than this.
      goal: ``"max"`` where more is better; None goes by the metric's name: of losses,
        errors and Brier scores less is better, of all others more.
    """

    metric: str
    patience: int | None = None
    min_delta: float = 0.0
    goal: Literal["max", "min"] | None = None

    def __post_init__(self) -> None:
        """Patience is at least one evaluation."""
        validate.positive_integer(patience=self.patience or 1)
        validate.non_negative(min_delta=self.min_delta)

    @property
    def less_is_better(self) -> bool:
        """Whether the metric is one of those that fall."""
        if self.goal is not None:
            return self.goal == "min"
        return any(word in self.metric for word in _ERRORS)

    def is_better(self, value: float, than: float) -> bool:
        """Whether ``value`` improves on ``than``; never where it is not a number."""
        gain = than - value if self.less_is_better else value - than
        return gain > self.min_delta


class Best(NamedTuple):
    """The best round so far.

    Attributes:
      metric: Of which it is the best.
      value: Its score.
      rounds_done: How many rounds led to it.
      num_worse: Evaluations since then, none of them better.
      weights: The global weights after it.
    """

    metric: str
    value: float
    rounds_done: int
    num_worse: int
    weights: ModelWeights

    def as_dict(self) -> dict[str, Any]:
        """All but the weights, as plain values."""
        return {name: getattr(self, name) for name in self._fields[:-1]}


def watched(
    stop: EarlyStop | None,
    best: Best | None,
    *,
    metrics: Mapping[str, float],
    rounds_done: int,
    weights: ModelWeights,
) -> Best | None:
    """The best round once one more is done; unchanged where it was not evaluated.

    A best round by another metric, from before a run was gone on with, is forgotten.
    """
    if stop is None or stop.metric not in metrics:
        return best
    if best is not None and best.metric != stop.metric:
        best = None
    value = float(metrics[stop.metric])
    if best is not None and not stop.is_better(value, best.value):
        return best._replace(num_worse=best.num_worse + 1)
    if value != value:  # not a number: no first score
        return best
    return Best(stop.metric, value, rounds_done, 0, weights)


def is_over(stop: EarlyStop | None, best: Best | None) -> bool:
    """Whether patience has run out."""
    if stop is None or stop.patience is None or best is None:
        return False
    return best.metric == stop.metric and best.num_worse >= stop.patience
