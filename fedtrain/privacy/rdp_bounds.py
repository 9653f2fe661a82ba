"""Rényi DP of integer noise, sampled or not: only bounds whose proof is cited.

- The discrete Gaussian on vectors of integers whose neighbours are at most D apart is
  D² / (2 σ²)-zCDP: Canonne, Kamath and Steinke (2020), The discrete Gaussian for
  differential privacy, https://arxiv.org/abs/2004.00010, Theorem 14.
- Poisson sampling of any mechanism, under add-or-remove-one: Zhu and Wang (2019),
  Poisson subsampled Rényi differential privacy, ICML, Theorem 6. It holds for every
  mechanism, and costs more than what is known of the continuous Gaussian alone.
- From Rényi DP to epsilon: Canonne, Kamath and Steinke, Proposition 12.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon
from scipy.special import gammaln, logsumexp

from fedtrain.privacy import events

_Orders = npt.NDArray[np.int64]
# Whole orders, because the bound for sampling is proved for these.
_SAMPLED_ORDERS = np.unique(np.geomspace(2, 1024, 120).astype(np.int64))
_PLAIN_ORDERS = np.unique(np.geomspace(2, 10**8, 2000).astype(np.int64))


def is_needed(counts: Mapping[Any, int]) -> bool:
    """Whether some leaf is integer noise, so no privacy loss distribution is proved."""
    return any(
        isinstance(leaf, events.Concentrated)
        or (
            isinstance(leaf, events.Sampled)
            and isinstance(leaf.event, events.Concentrated)
        )
        for leaf in counts
    )


def epsilon(counts: Mapping[Any, int], delta: float, relation: str) -> float:
    """Epsilon of all leaves together; infinite where no bound is known."""
    known = events.Concentrated | events.Gaussian | events.Sampled
    if not all(isinstance(leaf, known) for leaf in counts):
        return math.inf
    is_sampled = any(isinstance(leaf, events.Sampled) for leaf in counts)
    orders = _SAMPLED_ORDERS if is_sampled else _PLAIN_ORDERS
    total = sum(
        (num * _rdp(leaf, relation, orders) for leaf, num in counts.items()),
        np.zeros(len(orders)),
    )
    finite = np.isfinite(total)
    if not finite.any():
        return math.inf
    return float(compute_epsilon(orders[finite], total[finite], delta)[0])


def zcdp_rho(counts: Mapping[Any, int], relation: str) -> float | None:
    """The rho of all leaves together; None where one is sampled or not private."""
    plain = events.Concentrated | events.Gaussian
    if not all(isinstance(leaf, plain) for leaf in counts):
        return None
    return float(sum(num * _rho(leaf, relation) for leaf, num in counts.items()))


def _rdp(leaf: Any, relation: str, orders: _Orders) -> npt.NDArray[np.float64]:
    if isinstance(leaf, events.Sampled):
        rate = leaf.sampling_probability
        return _sampled_rdp(rate, _rho(leaf.event, relation))
    return _rho(leaf, relation) * orders


def _rho(leaf: Any, relation: str) -> float:
    own = (
        leaf.rho
        if isinstance(leaf, events.Concentrated)
        else 0.5 / leaf.noise_multiplier**2
    )
    # Replacing one moves a sum by twice the clipping norm.
    return float(4.0 * own if relation == "replace_one" else own)


@lru_cache(maxsize=1024)
def _sampled_rdp(rate: float, rho: float) -> npt.NDArray[np.float64]:
    return np.array([_at_order(int(order), rate, rho) for order in _SAMPLED_ORDERS])


def _at_order(order: int, rate: float, rho: float) -> float:
    """Zhu and Wang (2019), Theorem 6, in logarithms; terms of 0, 1, 2, ... draws."""
    draws = np.arange(order + 1)
    log_chances = (
        gammaln(order + 1)
        - gammaln(draws + 1)
        - gammaln(order - draws + 1)
        + draws * math.log(rate)
        + (order - draws) * math.log1p(-rate)
    )
    factors = np.where(draws > 2, math.log(3.0), 0.0)
    moments = np.where(draws > 1, rho * draws * (draws - 1), 0.0)
    return float(logsumexp(log_chances + factors + moments) / (order - 1))
