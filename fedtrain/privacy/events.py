"""What was done, in the accountant's terms: events counted, compared and stored.

Every event is brought to a count of *leaves*: the Gaussian mechanism, the
Poisson-sampled Gaussian mechanism, the mixture of Gaussians (several of one entity's
clients sampled independently into one sum), and zero-concentrated mechanisms (integer
noise), sampled or not. A noise multiplier is the noise's standard deviation over the
*clipping norm*, whatever the neighbouring relation; a rho speaks of one clipping norm.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dp_accounting
from dp_accounting import dp_event as events

from fedtrain.core.errors import PrivacyError

Counts = Mapping[Any, int]
Gaussian = events.GaussianDpEvent
Sampled = events.PoissonSampledDpEvent
Mixture = events.MixtureOfGaussiansDpEvent
Concentrated = events.ZCDpEvent
NonPrivate = events.NonPrivateDpEvent

RELATIONS = {
    "add_or_remove_one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": dp_accounting.NeighboringRelation.REPLACE_ONE,
    "replace_special": dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
}


def gaussian(noise_multiplier: float) -> Any:
    """The Gaussian mechanism; without noise it is not private."""
    return Gaussian(noise_multiplier) if noise_multiplier > 0 else NonPrivate()


def concentrated(rho: float) -> Any:
    """A mechanism of rho-zCDP for add-or-remove-one, such as integer noise on a sum.

    Source: Bun and Steinke (2016), https://arxiv.org/abs/1605.02065.
    """
    return Concentrated(rho)


def sampled(sampling_rate: float, event: Any) -> Any:
    """``event`` on a Poisson sample at a public constant rate."""
    return event if sampling_rate == 1.0 else Sampled(sampling_rate, event)


def times(event: Any, count: int) -> Any:
    """``event``, ``count`` times one after another."""
    return events.SelfComposedDpEvent(event, count)


def composed(parts: Sequence[Any]) -> Any:
    """All of ``parts``, one after another."""
    return events.ComposedDpEvent(list(parts))


def mixture(noise_multiplier: float, sampling_rate: float, num_copies: int) -> Any:
    """A unit that may enter one sum up to ``num_copies`` times, each on its own draw.

    With rate 1 it is the Gaussian mechanism at ``num_copies`` times the sensitivity;
    otherwise a mixture over how many copies were drawn. Source: Choquette-Choo et al.
    (2023), Privacy amplification for matrix mechanisms, on mixtures of Gaussians.
    """
    if noise_multiplier <= 0 or sampling_rate == 1.0 or num_copies == 1:
        return sampled(sampling_rate, gaussian(noise_multiplier / num_copies))
    drawn = range(num_copies + 1)
    chances = [
        math.comb(num_copies, k)
        * sampling_rate**k
        * (1.0 - sampling_rate) ** (num_copies - k)
        for k in drawn
    ]
    return Mixture(noise_multiplier, tuple(float(k) for k in drawn), tuple(chances))


def counted(event: Any) -> Counter[Any]:
    """The leaves of ``event`` and how often each was applied.

    Raises:
      PrivacyError: If ``event`` holds anything that is not accounted for here.
    """
    if isinstance(event, events.NoOpDpEvent):
        return Counter()
    if isinstance(event, events.SelfComposedDpEvent):
        inner = counted(event.event)
        return Counter({leaf: num * event.count for leaf, num in inner.items()})
    if isinstance(event, events.ComposedDpEvent):
        return sum((counted(part) for part in event.events), Counter())
    if isinstance(event, Sampled):
        return Counter([_sampled_leaf(event)])
    if isinstance(event, Gaussian):
        return Counter([gaussian(event.noise_multiplier)])
    if isinstance(event, Mixture | NonPrivate):
        return Counter([event])
    if isinstance(event, Concentrated) and event.xi == 0:
        return Counter([event])
    raise PrivacyError(f"No accountant here can prove a bound for {event!r}.")


def joined(counts: Counts) -> Any:
    """One event from counted leaves."""
    return events.ComposedDpEvent([times(leaf, num) for leaf, num in counts.items()])


def joint_noise_multiplier(counts: Counts) -> float:
    """One Gaussian's multiplier that equals all the (unsampled) Gaussians together."""
    precision = sum(num / leaf.noise_multiplier**2 for leaf, num in counts.items())
    return 1.0 / math.sqrt(precision)


def to_json(counts: Counts) -> list[dict[str, Any]]:
    """Counted leaves as plain values, in a fixed order."""
    entries = [_leaf_to_json(leaf) | {"count": num} for leaf, num in counts.items()]
    return sorted(entries, key=repr)


def from_json(entries: Any) -> Counter[Any]:
    """Counted leaves from what ``to_json`` gave."""
    counts: Counter[Any] = Counter()
    for entry in entries:
        counts[_leaf_from_json(entry)] += int(entry["count"])
    return counts


def _sampled_leaf(event: Any) -> Any:
    inner = counted(event.event)
    if NonPrivate() in inner:
        return NonPrivate()
    if inner and all(isinstance(leaf, Concentrated) for leaf in inner):
        rho = sum(leaf.rho * num for leaf, num in inner.items())
        return sampled(event.sampling_probability, concentrated(rho))
    if not inner or not all(isinstance(leaf, Gaussian) for leaf in inner):
        raise PrivacyError(
            "Amplification by Poisson sampling is accounted for Gaussian mechanisms "
            f"or integer noise, each by itself, not for {event.event!r}."
        )
    return sampled(event.sampling_probability, gaussian(joint_noise_multiplier(inner)))


def _leaf_to_json(leaf: Any) -> dict[str, Any]:
    if isinstance(leaf, Gaussian):
        return {"event": "gaussian", "noise_multiplier": leaf.noise_multiplier}
    if isinstance(leaf, Concentrated):
        return {"event": "concentrated", "rho": leaf.rho}
    if isinstance(leaf, Sampled) and isinstance(leaf.event, Concentrated):
        return {
            "event": "poisson_sampled_concentrated",
            "sampling_rate": leaf.sampling_probability,
            "rho": leaf.event.rho,
        }
    if isinstance(leaf, Sampled):
        return {
            "event": "poisson_sampled_gaussian",
            "sampling_rate": leaf.sampling_probability,
            "noise_multiplier": leaf.event.noise_multiplier,
        }
    if isinstance(leaf, Mixture):
        return {
            "event": "mixture_of_gaussians",
            "noise_multiplier": leaf.standard_deviation,
            "sensitivities": list(leaf.sensitivities),
            "chances": list(leaf.sampling_probs),
        }
    return {"event": "not_private"}


def _leaf_from_json(entry: Mapping[str, Any]) -> Any:
    kind = entry["event"]
    if kind == "gaussian":
        return gaussian(entry["noise_multiplier"])
    if kind == "poisson_sampled_gaussian":
        return sampled(entry["sampling_rate"], gaussian(entry["noise_multiplier"]))
    if kind == "concentrated":
        return concentrated(entry["rho"])
    if kind == "poisson_sampled_concentrated":
        return sampled(entry["sampling_rate"], concentrated(entry["rho"]))
    if kind == "mixture_of_gaussians":
        return Mixture(
            entry["noise_multiplier"],
            tuple(entry["sensitivities"]),
            tuple(entry["chances"]),
        )
    if kind == "not_private":
        return NonPrivate()
    raise PrivacyError(f"Unknown event {kind!r}; this file is from another version.")
