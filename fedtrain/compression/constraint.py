"""What compressed weights have to satisfy, as functions of the weights alone.

A constraint is worked out from the server's weights and nothing else. Where those are
already private, so is everything here: it is post-processing, and costs no privacy.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from fedtrain.core import nests
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import ModelWeights

# Schedules are past their end at this round.
LAST_ROUND = 2**31 - 1


class Constraint(NamedTuple):
    """Weights that compress well: where the zeros are, which values are shared.

    Attributes:
      derive: ``derive(trainable, round_number)`` -> what stays fixed during a round:
        masks, assignments or ranges. A nest of tensors without random numbers.
      apply: ``apply(fixed, trainable)`` -> the weights that the model computes with,
        a nest of the same shapes. Its gradient lets weights move only within the
        constraint, or passes straight through a rounding.
      keep: ``keep(fixed, trainable)`` -> the weights that the server goes on with:
        ``apply`` without what would swallow small updates, such as rounding.
      name: For reports.
      within: ``within(fixed, trainable)`` -> what ``apply`` gives, with its gradient,
        for weights that satisfy ``keep`` already: cheaper than ``apply``.
    """

    derive: Callable[[Any, Any], Any]
    apply: Callable[[Any, Any], Any]
    keep: Callable[[Any, Any], Any]
    name: str
    within: Callable[[Any, Any], Any]


def chain(*constraints: Constraint) -> Constraint:
    """One constraint after another, each derived from what the earlier ones leave.

    ``chain(pruned(0.8), clustered(16), quantized())`` keeps the zeros while it shares
    values, and rounds what is left.
    """
    if not constraints:
        raise ConfigError("chain(...) needs at least one constraint, got none.")

    def derive(trainable: Any, round_number: Any) -> tuple[Any, ...]:
        fixed = []
        for constraint in constraints:
            fixed.append(constraint.derive(trainable, round_number))
            trainable = constraint.apply(fixed[-1], trainable)
        return tuple(fixed)

    apply, keep, within = (
        partial(_in_turn, [getattr(each, member) for each in constraints])
        for member in ("apply", "keep", "within")
    )
    name = "+".join(constraint.name for constraint in constraints)
    return Constraint(derive, apply, keep, name, within)


def one_shot(
    weights: ModelWeights, constraint: Constraint, *, round_number: int = LAST_ROUND
) -> ModelWeights:
    """``weights`` made to satisfy ``constraint``; tensors of the same shapes and types.

    Args:
      weights: Of any model, as arrays or tensors.
      constraint: What they have to satisfy.
      round_number: Where schedules are evaluated; at their end by default.

    Guarantees:
      The result is a function of ``weights`` alone. ``state`` is unchanged.
    """
    weights = nests.to_tensors(weights)
    number = tf.constant(round_number, tf.int32)
    fixed = constraint.derive(weights.trainable, number)
    return weights._replace(trainable=constraint.apply(fixed, weights.trainable))


def kernel_leaves(trainable: Any, kernels: Sequence[bool] | None) -> list[Any]:
    """The leaves that are compressed, in the order of ``tf.nest.flatten``.

    Args:
      trainable: Nest of weights.
      kernels: One bool for each leaf. By default floating leaves of rank 2 or more:
        kernels and embeddings, not biases or scales of normalisation layers, which are
        few and matter much. Attention layers of Keras have biases of rank 2.

    Raises:
      ConfigError: ``kernels`` is of another length, or nothing is left to compress.
    """
    leaves = tf.nest.flatten(trainable)
    chosen = _chosen(leaves, kernels)
    if not any(chosen):
        raise ConfigError(
            f"None of the {len(leaves)} trainable weights is a kernel (floating, of "
            "rank 2 or more); name those to compress by kernels=[True, ...]."
        )
    return [leaf for leaf, is_chosen in zip(leaves, chosen, strict=True) if is_chosen]


def map_kernels(
    function: Callable[[Any, Any], Any],
    fixed: Sequence[Any],
    trainable: Any,
    kernels: Sequence[bool] | None,
) -> Any:
    """``function(fixed_of_leaf, leaf)`` for the leaves that are compressed.

    Args:
      function: Gives a leaf of the same shape.
      fixed: One entry for each of ``kernel_leaves(trainable, kernels)``.
      trainable: Nest of weights; its other leaves stay as they are.
      kernels: As in ``kernel_leaves``.
    """
    leaves = tf.nest.flatten(trainable)
    rest = iter(fixed)
    mapped = [
        function(next(rest), leaf) if is_chosen else leaf
        for leaf, is_chosen in zip(leaves, _chosen(leaves, kernels), strict=True)
    ]
    return tf.nest.pack_sequence_as(trainable, mapped)


def unchanged(values: Any, project: Callable[[Any], Any]) -> Any:
    """``values`` as they are, with ``project`` applied to their gradient."""

    @tf.custom_gradient
    def same(values: Any) -> tuple[Any, Any]:
        return tf.identity(values), project

    return same(values)


def _in_turn(
    functions: Sequence[Callable[[Any, Any], Any]],
    fixed: tuple[Any, ...],
    trainable: Any,
) -> Any:
    for function, own in zip(functions, fixed, strict=True):
        trainable = function(own, trainable)
    return trainable


def _chosen(leaves: list[Any], kernels: Sequence[bool] | None) -> list[bool]:
    if kernels is None:
        return [
            tf.as_dtype(leaf.dtype).is_floating and len(leaf.shape) >= 2
            for leaf in leaves
        ]
    chosen = [bool(value) for value in kernels]
    if len(chosen) != len(leaves):
        raise ConfigError(
            f"kernels has {len(chosen)} entries, but the model has {len(leaves)} "
            "trainable weights; give one bool for each of them."
        )
    return chosen
