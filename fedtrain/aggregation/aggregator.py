"""How many contributions become one: stages with a client half and a server half."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.core.mechanism import Mechanism

Encode = Callable[[Any, Contribution, Any, seeds.Seed], tuple[Contribution, Any]]
Decode = Callable[[Any, Contribution, seeds.Seed], tuple[Contribution, Any]]


def unpacked(update: Any) -> Any:
    """The ``packings`` of a stage whose updates can be any numbers."""
    return tf.nest.map_structure(lambda _: None, update)


def no_numbers(state: Any) -> dict[str, float]:
    """The ``reported`` of a stage that has nothing to tell."""
    del state
    return {}


class Aggregator(NamedTuple):
    """How many contributions become one, and how that is protected.

    Attributes:
      init: ``init(weights)`` -> the stage's server state.
      share: ``share(state)`` -> what clients may see of it; nothing by default.
      init_client: ``init_client(weights)`` -> a new client's state for this stage.
      encode: ``encode(shared, contribution, client_state, seed)`` -> contribution,
        client_state; on the client.
      decode: ``decode(state, total, seed)`` -> total, state; on the server. The last
        stage to decode leaves the aggregate in ``total.update``.
      mechanisms: The privacy mechanisms in it.
      reveals: Names of exact quantities besides the noised update that ``decode``
        reads, such as ``"weight"``.
      needs: ``"sum"``, or ``"contributions"`` for order statistics.
      packings: ``packings(update)`` -> for each leaf of an encoded update the
        ``Packing`` that it allows on the wire, or None.
      reported: ``reported(state)`` -> numbers of the last round by name that were
        noised and paid for with its sum; none by default.
      is_modular: Whether encoded updates are whole numbers modulo 2^32 (uint32).
      released: ``released(noise)`` -> the same stage with its noise from a source for
        release; None where it has none of its own, or cannot be rebuilt so.
    """

    init: Callable[[Any], Any]
    share: Callable[[Any], Any]
    init_client: Callable[[Any], Any]
    encode: Encode
    decode: Decode
    mechanisms: tuple[Mechanism, ...] = ()
    reveals: frozenset[str] = frozenset()
    needs: Literal["sum", "contributions"] = "sum"
    packings: Callable[[Any], Any] = unpacked
    reported: Callable[[Any], dict[str, float]] = no_numbers
    is_modular: bool = False
    released: "Callable[[Any], Aggregator] | None" = None


def nothing(value: Any) -> tuple[()]:
    """The ``init``, ``share`` or ``init_client`` of a stage that keeps nothing."""
    del value
    return ()


def unchanged(
    shared: Any, contribution: Contribution, client_state: Any, seed: seeds.Seed
) -> tuple[Contribution, Any]:
    """The ``encode`` of a stage whose clients do nothing."""
    del shared, seed
    return contribution, client_state


def chain(*stages: Aggregator) -> Aggregator:
    """Stages one after another: clients encode left to right, servers decode back.

    ``chain(mean_over_expected_cohort(100), gaussian_mechanism(...))`` scales, then
    clips on the client; the server adds noise first, then divides.

    Raises:
      PrivacyError: If one stage promises privacy and another reads an exact quantity
        that the promise does not cover, or compresses what the promise bounds.
      ConfigError: If a stage follows one that compresses.
    """
    if any(stage.packings is not unpacked for stage in stages[:-1]):
        raise ConfigError(
            "A stage that compresses updates must be the last of a chain: a later one "
            "would change what it has made short."
        )
    _refuse_beside_modular(stages)
    aggregator = Aggregator(
        init=lambda weights: tuple(stage.init(weights) for stage in stages),
        share=lambda state: tuple(
            stage.share(part) for stage, part in zip(stages, state, strict=True)
        ),
        init_client=lambda weights: tuple(
            stage.init_client(weights) for stage in stages
        ),
        encode=partial(_encode, stages),
        decode=partial(_decode, stages),
        mechanisms=tuple(m for stage in stages for m in stage.mechanisms),
        reveals=frozenset().union(*(stage.reveals for stage in stages)),
        needs="sum" if all(s.needs == "sum" for s in stages) else "contributions",
        packings=stages[-1].packings if stages else unpacked,
        reported=partial(_reported, stages),
        is_modular=any(stage.is_modular for stage in stages),
        released=_released_chain(stages),
    )
    refuse_exact_quantities(aggregator.mechanisms, aggregator.reveals)
    refuse_compressed_bounds(aggregator.mechanisms, aggregator)
    return aggregator


def refuse_compressed_bounds(
    mechanisms: tuple[Mechanism, ...], aggregator: Aggregator
) -> None:
    """Raises PrivacyError where compression changes what noise on the sum relies on.

    Noise that a client has added before it compresses (trust local) stays: what is done
    to a private result, without looking at the data again, is as private.
    """
    bounded = [one for one in mechanisms if one.trust != "local"]
    if bounded and aggregator.packings is not unpacked:
        raise PrivacyError(
            f"The {bounded[0].name} mechanism adds noise to a sum of updates whose "
            f"norm is at most {bounded[0].clipping_norm:g}; compressing an update can "
            "lengthen it, and the promise would not hold. Leave the compression out, "
            "or let the clients add the noise themselves (trust = 'local')."
        )


def refuse_exact_quantities(
    mechanisms: tuple[Mechanism, ...], reveals: frozenset[str]
) -> None:
    """Raises PrivacyError where an exact quantity leaves beside a protected one."""
    if mechanisms and reveals:
        names = ", ".join(sorted(reveals))
        raise PrivacyError(
            f"This aggregator reads the exact {names} of the cohort, which the "
            f"{mechanisms[0].name} mechanism does not protect. Use "
            "mean_over_expected_cohort(...), whose denominator is public."
        )


def _refuse_beside_modular(stages: tuple[Aggregator, ...]) -> None:
    """A masked sum can only be added to; nobody sees what was added."""
    if not any(stage.is_modular for stage in stages):
        return
    if not stages[-1].is_modular or sum(stage.is_modular for stage in stages) > 1:
        raise PrivacyError(
            "The stage that makes whole numbers modulo 2^32 must be the last of a "
            "chain: scaling or compressing them afterwards would break the sum, the "
            "masks on it and the noise in it. Put the other stages before it."
        )
    if any(stage.needs != "sum" for stage in stages):
        raise PrivacyError(
            "This aggregator needs each client's contribution by itself (a median, a "
            "trimmed mean, Krum), and secure aggregation shows none, only their sum. "
            "Use a mean with norm bounds, or leave secure aggregation out."
        )


def _released_chain(
    stages: tuple[Aggregator, ...],
) -> "Callable[[Any], Aggregator] | None":
    if all(stage.released is None for stage in stages):
        return None
    return lambda noise: chain(
        *(stage.released(noise) if stage.released else stage for stage in stages)
    )


def _reported(stages: tuple[Aggregator, ...], state: Any) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for stage, part in zip(stages, state, strict=True):
        numbers |= stage.reported(part)
    return numbers


def _encode(
    stages: tuple[Aggregator, ...],
    shared: Any,
    contribution: Contribution,
    client_state: Any,
    seed: seeds.Seed,
) -> tuple[Contribution, Any]:
    states = []
    for i, stage in enumerate(stages):
        contribution, state = stage.encode(
            shared[i], contribution, client_state[i], seeds.fold(seed, i)
        )
        states.append(state)
    return contribution, tuple(states)


def _decode(
    stages: tuple[Aggregator, ...], state: Any, total: Contribution, seed: seeds.Seed
) -> tuple[Contribution, Any]:
    states = list(state)
    for i in reversed(range(len(stages))):
        total, states[i] = stages[i].decode(state[i], total, seeds.fold(seed, i))
    return total, tuple(states)
