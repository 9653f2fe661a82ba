"""How much a late contribution counts: a public function of how late it is.

The staleness of a contribution is the number of server updates between the weights
that its client received and the update that takes it in. 0 is fresh.

Source: Xie, Koyejo and Gupta (2019), Asynchronous federated optimization,
https://arxiv.org/abs/1903.03934, section 5.2; Nguyen et al. (2022), Federated learning
with buffered asynchronous aggregation, https://arxiv.org/abs/2106.06639 (exponent 1/2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, validate
from fedtrain.core.errors import ConfigError

StalenessDiscount = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class PolynomialDiscount:
    """``(1 + staleness) ** -exponent``; exponent 0 makes no difference of lateness."""

    exponent: float

    def __post_init__(self) -> None:
        """The exponent is not negative."""
        validate.non_negative(exponent=self.exponent)

    def __call__(self, staleness: int) -> float:
        """The factor of a contribution, in (0, 1]."""
        return float((1.0 + staleness) ** -self.exponent)


@dataclass(frozen=True, kw_only=True)
class HingeDiscount:
    """``1 / (1 + slope * (staleness - grace))``, and 1 up to ``grace``."""

    grace: int
    slope: float

    def __post_init__(self) -> None:
        """Neither is negative."""
        validate.non_negative(grace=self.grace, slope=self.slope)

    def __call__(self, staleness: int) -> float:
        """The factor of a contribution, in (0, 1]."""
        return 1.0 / (1.0 + self.slope * max(staleness - self.grace, 0))


def polynomial_discount(exponent: float = 0.5) -> PolynomialDiscount:
    """``(1 + staleness) ** -exponent``: by default one over the square root."""
    return PolynomialDiscount(exponent=exponent)


def hinge_discount(*, grace: int, slope: float) -> HingeDiscount:
    """No discount up to ``grace`` updates late, then hyperbolic with ``slope``."""
    return HingeDiscount(grace=grace, slope=slope)


def no_discount() -> PolynomialDiscount:
    """A late contribution counts as much as a fresh one."""
    return PolynomialDiscount(exponent=0.0)


def checked_discount(discount: StalenessDiscount, staleness: int) -> float:
    """``discount(staleness)``.

    Raises:
      ConfigError: Unless it lies in [0, 1]. A contribution that was clipped must not
        grow again: the noise would no longer cover it.
    """
    factor = float(discount(staleness))
    if not 0.0 <= factor <= 1.0:
        raise ConfigError(
            f"staleness_discount gave {factor!r} for staleness {staleness}; it must be "
            "in [0, 1], so that a clipped contribution keeps its bound."
        )
    return factor


def discounted(contribution: Contribution, factor: Any) -> Contribution:
    """``contribution`` times ``factor``, but for its metrics.

    The update, the weight and what aggregation stages have added are scaled alike, so a
    weighted mean stays a mean. In [0, 1] the factor keeps any bound on the update.
    """
    scaled = nests.scale(contribution._replace(metrics={}), factor)
    return scaled._replace(metrics=contribution.metrics)


def refuse_integers(contribution: Contribution) -> None:
    """Raises ConfigError where a contribution cannot be multiplied by a discount."""
    leaves = tf.nest.flatten(contribution._replace(metrics={}))
    kinds = {leaf.dtype.name for leaf in leaves if not leaf.dtype.is_floating}
    if kinds:
        raise ConfigError(
            f"The contributions hold {', '.join(sorted(kinds))}, such as the masked "
            "integers of secure aggregation, which no discount can scale and which "
            "add up within one cohort only. Use train(...), which has cohorts."
        )
