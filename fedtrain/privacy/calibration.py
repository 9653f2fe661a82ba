"""Solve for one number of a plan: noise multiplier, rounds or sampling rate.

Each search evaluates the accountant on its quick grid, whose epsilon is never below the
headline's, so what is found also holds there.
"""

from collections.abc import Callable
from typing import Any

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError
from fedtrain.privacy import accounting

EventAt = Callable[[float], Any]
_RELATIVE_TOLERANCE = 1e-4
_LARGEST_NOISE = 1e6
_MOST_ROUNDS = 10_000_000


class Target:
    """An epsilon to stay below, at ``delta`` under ``neighboring_relation``."""

    def __init__(self, *, epsilon: float, delta: float, relation: str) -> None:
        validate.positive(target_epsilon=epsilon)
        validate.probability(delta=delta)
        self.epsilon = epsilon
        self._delta = delta
        self._relation = relation

    def holds(self, event: Any) -> bool:
        """Whether ``event`` stays within the target."""
        spent = accounting.epsilon(
            event, self._delta, self._relation, interval=accounting.QUICK
        )
        return spent <= self.epsilon


def least_noise_multiplier(event_at: EventAt, target: Target) -> float:
    """The smallest noise multiplier that keeps the target, to a ten-thousandth."""
    low, high = 0.0, 0.5
    while not target.holds(event_at(high)):
        low, high = high, 2.0 * high
        if high > _LARGEST_NOISE:
            raise _out_of_reach(target)
    # Below a quarter the grid of losses grows large and no target worth having is met.
    return _bisect(lambda z: target.holds(event_at(z)), bad=max(low, 0.1), good=high)


def most_rounds(event_at: EventAt, target: Target) -> int:
    """The largest whole number of rounds that keeps the target."""
    if not target.holds(event_at(1)):
        raise _out_of_reach(target)
    good, bad = 1, 2
    while target.holds(event_at(bad)):
        good, bad = bad, 2 * bad
        if bad > _MOST_ROUNDS:
            return good
    while bad - good > 1:
        middle = (good + bad) // 2
        if target.holds(event_at(middle)):
            good = middle
        else:
            bad = middle
    return good


def largest_sampling_rate(event_at: EventAt, target: Target) -> float:
    """The largest sampling rate in (0, 1] that keeps the target."""
    if target.holds(event_at(1.0)):
        return 1.0
    good = 0.5
    while not target.holds(event_at(good)):
        good /= 2.0
        if good < 1e-8:
            raise _out_of_reach(target)
    return _bisect(lambda q: target.holds(event_at(q)), bad=2.0 * good, good=good)


def _bisect(holds: Callable[[float], bool], *, bad: float, good: float) -> float:
    if holds(bad):
        return bad
    while abs(bad - good) > _RELATIVE_TOLERANCE * good:
        middle = (bad + good) / 2.0
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _out_of_reach(target: Target) -> ConfigError:
    return ConfigError(
        f"target_epsilon = {target.epsilon:g} cannot be kept by changing this one "
        "number. Lower num_rounds or the sampling rate, raise noise_multiplier, or "
        "raise target_epsilon."
    )
