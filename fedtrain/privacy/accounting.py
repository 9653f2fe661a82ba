"""Epsilon from events: PLD for the headline, RDP as a cross-check.

Unsampled Gaussians compose to one Gaussian, whose epsilon has a closed form (Balle and
Wang, 2018, Analytic Gaussian); everything else goes through dp_accounting's privacy
loss distributions, discretised pessimistically, so a coarser grid can only report more.

Integer noise is accounted for by Rényi DP alone (``fedtrain.privacy.rdp_bounds``): no
reduction of vectors of integers to one dimension is proved here.

What is refused, because no proof for vectors is cited here: amplification by Poisson
sampling under replace-one.
"""

import importlib.metadata
import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import dp_accounting
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from scipy.special import log_ndtr

from fedtrain.core import validate
from fedtrain.core.errors import PrivacyError
from fedtrain.privacy import events, rdp_bounds

FINE = 1e-4
QUICK = 1e-3
_VERSION = importlib.metadata.version("dp-accounting")
ACCOUNTANT = f"PLD (dp-accounting {_VERSION})"
CROSS_CHECK = f"RDP (dp-accounting {_VERSION})"
INTEGER_ACCOUNTANT = f"RDP of zCDP, conversion by dp-accounting {_VERSION}"


def accountant(event: Any) -> str:
    """Who proves the epsilon of ``event``, by name and version."""
    counts = events.counted(event)
    return INTEGER_ACCOUNTANT if rdp_bounds.is_needed(counts) else ACCOUNTANT


def epsilon(
    event: Any, delta: float, neighboring_relation: str, *, interval: float = FINE
) -> float:
    """Epsilon of ``event`` at ``delta``; infinite where something was not private.

    Args:
      event: A dp_accounting event whose noise multipliers are relative to the clipping
        norm. Under replace-one the sensitivity is twice that norm.
      delta: In (0, 1).
      neighboring_relation: ``"add_or_remove_one"``, ``"replace_one"`` or
        ``"replace_special"``.
      interval: Grid of the privacy losses; ``QUICK`` for what is shown each round.
    """
    validate.probability(delta=delta)
    counts = _checked(event, neighboring_relation)
    if rdp_bounds.is_needed(counts):
        return rdp_bounds.epsilon(counts, delta, neighboring_relation)
    return _epsilon(frozenset(counts.items()), delta, neighboring_relation, interval)


def rdp_epsilon(event: Any, delta: float, neighboring_relation: str) -> float | None:
    """The cross-check; None where dp_accounting's RDP knows no bound for ``event``."""
    counts = _checked(event, neighboring_relation)
    if any(isinstance(leaf, events.Mixture) for leaf in counts):
        return None
    if rdp_bounds.is_needed(counts):
        return rdp_bounds.epsilon(counts, delta, neighboring_relation)
    return _rdp_epsilon(frozenset(counts.items()), delta, neighboring_relation)


def epsilon_curve(
    event: Any, deltas: Sequence[float], neighboring_relation: str
) -> list[tuple[float, float]]:
    """Pairs of delta and epsilon."""
    return [(delta, epsilon(event, delta, neighboring_relation)) for delta in deltas]


def zcdp_rho(event: Any, neighboring_relation: str) -> float | None:
    """The rho of zero-concentrated DP; None where something is sampled."""
    counts = _checked(event, neighboring_relation)
    if rdp_bounds.is_needed(counts):
        return rdp_bounds.zcdp_rho(counts, neighboring_relation)
    if not counts or not all(isinstance(leaf, events.Gaussian) for leaf in counts):
        return None
    sigma = _scaled(events.joint_noise_multiplier(counts), neighboring_relation)
    return 1.0 / (2.0 * sigma**2)


def _checked(event: Any, relation: str) -> events.Counts:
    validate.one_of(events.RELATIONS, neighboring_relation=relation)
    counts = events.counted(event)
    gaussian = events.Gaussian | events.NonPrivate | events.Concentrated
    if relation == "replace_one" and not all(isinstance(e, gaussian) for e in counts):
        raise PrivacyError(
            "neighboring_relation is 'replace_one' and the event is Poisson-sampled: "
            "no proof of that amplification is cited here. Use "
            "neighboring_relation = 'add_or_remove_one' (with Poisson sampling the "
            "usual one), or claim no amplification."
        )
    return counts


@lru_cache(maxsize=4096)
def _epsilon(counts: Any, delta: float, relation: str, interval: float) -> float:
    if not counts:
        return 0.0
    leaves = dict(counts)
    if events.NonPrivate() in leaves:
        return math.inf
    plain = {e: n for e, n in leaves.items() if isinstance(e, events.Gaussian)}
    if len(plain) == len(leaves):
        return _gaussian_epsilon(events.joint_noise_multiplier(plain), delta, relation)
    interval = _affordable(leaves, delta, interval)
    losses = pld.identity(value_discretization_interval=interval)
    if plain:
        joint = events.gaussian(events.joint_noise_multiplier(plain))
        losses = losses.compose(_losses(joint, interval))
    for leaf in sorted(leaves.keys() - plain.keys(), key=repr):
        losses = losses.compose(_losses(leaf, interval).self_compose(leaves[leaf]))
    return float(losses.get_epsilon_for_delta(delta))


@lru_cache(maxsize=32)
def _losses(leaf: Any, interval: float) -> Any:
    # Reached under add-or-remove and replace-special only, which share their bounds.
    if isinstance(leaf, events.Mixture):
        return pld.from_mixture_gaussian_mechanism(
            standard_deviation=leaf.standard_deviation,
            sensitivities=leaf.sensitivities,
            sampling_probs=leaf.sampling_probs,
            value_discretization_interval=interval,
        )
    is_sampled = isinstance(leaf, events.Sampled)
    return pld.from_gaussian_mechanism(
        standard_deviation=(leaf.event if is_sampled else leaf).noise_multiplier,
        sampling_prob=leaf.sampling_probability if is_sampled else 1.0,
        value_discretization_interval=interval,
    )


def _affordable(leaves: events.Counts, delta: float, interval: float) -> float:
    """A grid in proportion to a rough epsilon, so no answer takes minutes.

    Steps are powers of two apart, so one round's grid is usually the next one's too.
    """
    precision = sum(_rough_precision(leaf, num) for leaf, num in leaves.items())
    rough = dp_accounting.get_epsilon_gaussian(1.0 / math.sqrt(precision), delta)
    steps = math.ceil(math.log2(max(rough / 20.0, 1.0)))
    # dp_accounting inverts a mixture's loss numerically, point by point.
    has_mixture = any(isinstance(leaf, events.Mixture) for leaf in leaves)
    return float((max(interval, 2e-3) if has_mixture else interval) * 2.0**steps)


def _rough_precision(leaf: Any, num: int) -> float:
    """Of the Gaussian that resembles ``num`` of ``leaf`` (central limit theorem)."""
    if isinstance(leaf, events.Gaussian):
        return num / leaf.noise_multiplier**2
    if isinstance(leaf, events.Mixture):
        mean = sum(
            s * p for s, p in zip(leaf.sensitivities, leaf.sampling_probs, strict=True)
        )
        return num * max(mean / leaf.standard_deviation, 1e-9) ** 2
    inverse = leaf.event.noise_multiplier**-2
    amplified = leaf.sampling_probability**2 * math.expm1(min(inverse, 50.0))
    return num * max(min(inverse, amplified), 1e-18)


def _gaussian_epsilon(noise_multiplier: float, delta: float, relation: str) -> float:
    """The upper end of an interval of relative width 1e-12; takes 0.2 ms, not 5."""
    sigma = _scaled(noise_multiplier, relation)
    if not 1e-3 <= sigma <= 1e5:
        return float(dp_accounting.get_epsilon_gaussian(sigma, delta))
    low, high = 0.0, 1.0
    if _gaussian_log_delta(sigma, low) <= math.log(delta):
        return 0.0
    while _gaussian_log_delta(sigma, high) > math.log(delta):
        low, high = high, 2.0 * high
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        too_small = _gaussian_log_delta(sigma, middle) > math.log(delta)
        low, high = (middle, high) if too_small else (low, middle)
    return high


def _gaussian_log_delta(sigma: float, epsilon: float) -> float:
    """Balle and Wang (2018), Theorem 8, in logarithms."""
    above = float(log_ndtr(0.5 / sigma - epsilon * sigma))
    below = epsilon + float(log_ndtr(-0.5 / sigma - epsilon * sigma))
    return above + math.log(-math.expm1(min(below - above, -1e-300)))


def _scaled(noise_multiplier: float, relation: str) -> float:
    return noise_multiplier / 2.0 if relation == "replace_one" else noise_multiplier


@lru_cache(maxsize=1024)
def _rdp_epsilon(counts: Any, delta: float, relation: str) -> float:
    if not counts:
        return 0.0
    if events.NonPrivate() in dict(counts):
        return math.inf
    # dp_accounting's RDP reads a noise multiplier as relative to the sensitivity under
    # the relation, its PLD as relative to the clipping norm: replace-one is halved.
    accountant = RdpAccountant()
    absl_log = logging.getLogger("absl")
    absl_log.addFilter(_is_about_something_else)
    try:
        for leaf, num in counts:
            is_plain = isinstance(leaf, events.Gaussian)
            halved = _scaled(leaf.noise_multiplier, relation) if is_plain else 0.0
            accountant.compose(events.gaussian(halved) if is_plain else leaf, num)
        return float(accountant.get_epsilon(delta))
    finally:
        absl_log.removeFilter(_is_about_something_else)


def _is_about_something_else(record: logging.LogRecord) -> bool:
    # An order without a convergent series is left out, which can only loosen the bound.
    return "_compute_log_a_frac" not in str(record.msg)
