"""Pruning: the smallest weights become zero and stay zero.

Source: Zhu and Gupta (2017), To prune, or not to prune,
https://arxiv.org/abs/1710.01878 (magnitudes and the polynomial schedule); Mishra et al.
(2021), https://arxiv.org/abs/2104.08378 (2 of each 4).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import tensorflow as tf

from fedtrain.compression.constraint import (
    Constraint,
    kernel_leaves,
    map_kernels,
    unchanged,
)
from fedtrain.core import validate
from fedtrain.core.errors import ConfigError

Sparsity = Callable[[Any], Any]
Scope = Literal["layer", "global"]


def pruned(
    sparsity: float | Sparsity,
    *,
    scope: Scope = "layer",
    kernels: Sequence[bool] | None = None,
) -> Constraint:
    """The share ``sparsity`` of the weights, those of least magnitude, is zero.

    Args:
      sparsity: In [0, 1), or a function of the round such as ``polynomial_sparsity``.
      scope: ``"layer"`` takes the share of each kernel, ``"global"`` of all together.
      kernels: Which leaves are pruned; see ``kernel_leaves``.

    Guarantees:
      ``round(size * (1 - sparsity))`` weights are kept, at least one, and more only
      where several have exactly the least magnitude that is kept.
    """
    validate.one_of(("layer", "global"), scope=scope)
    if not callable(sparsity):
        _check_sparsity(sparsity=sparsity)

    def derive(trainable: Any, round_number: Any) -> tuple[Any, ...]:
        leaves = kernel_leaves(trainable, kernels)
        share = sparsity(round_number) if callable(sparsity) else sparsity
        magnitudes = [_ordered_magnitudes(leaf) for leaf in leaves]
        thresholds = _thresholds(magnitudes, tf.cast(share, tf.float64), scope)
        pairs = zip(magnitudes, thresholds, strict=True)
        return tuple(magnitude >= threshold for magnitude, threshold in pairs)

    apply, within = partial(_masked, kernels), partial(_within, kernels)
    name = f"pruned({_label(sparsity)}, {scope})"
    return Constraint(derive, apply, apply, name, within)


def pruned_2_of_4(*, kernels: Sequence[bool] | None = None) -> Constraint:
    """Of each four weights in a row along the inputs (axis -2), two are zero.

    Some accelerators compute such kernels at twice the speed. What a number of inputs
    leaves over when divided by four is kept.

    Args:
      kernels: Which leaves are pruned; see ``kernel_leaves``.
    """

    def derive(trainable: Any, round_number: Any) -> tuple[Any, ...]:
        del round_number
        return tuple(_two_of_four(leaf) for leaf in kernel_leaves(trainable, kernels))

    apply, within = partial(_masked, kernels), partial(_within, kernels)
    return Constraint(derive, apply, apply, "pruned(2 of 4)", within)


def polynomial_sparsity(
    final: float,
    *,
    end_round: int,
    initial: float = 0.0,
    begin_round: int = 0,
    power: float = 3.0,
) -> Sparsity:
    """Sparsity that rises fast at first and levels out (Zhu and Gupta, 2017, eq. 1).

    Args:
      final: Sparsity from ``end_round`` on, in [0, 1).
      end_round: The first round at full sparsity; let some rounds follow it.
      initial: Sparsity at ``begin_round``; before that nothing is pruned.
      begin_round: When pruning starts, from 0.
      power: 1 rises evenly, 3 is usual.

    Returns:
      ``sparsity(round_number)`` -> float32 scalar.
    """
    _check_sparsity(final=final, initial=initial)
    validate.positive(power=power)
    validate.non_negative(begin_round=begin_round)
    if end_round <= begin_round:
        raise ConfigError(
            f"end_round must come after begin_round {begin_round}, got {end_round}."
        )

    def sparsity(round_number: Any) -> Any:
        done = tf.cast(round_number - begin_round, tf.float32)
        left = 1.0 - tf.clip_by_value(done / (end_round - begin_round), 0.0, 1.0)
        value = final + (initial - final) * tf.pow(left, power)
        return tf.where(done < 0, 0.0, value)

    return sparsity


def _thresholds(magnitudes: list[Any], sparsity: Any, scope: Scope) -> list[Any]:
    flat = [tf.reshape(magnitude, [-1]) for magnitude in magnitudes]
    if scope == "layer":
        return [_least_kept(values, sparsity) for values in flat]
    return [_least_kept(tf.concat(flat, 0), sparsity)] * len(flat)


def _ordered_magnitudes(leaf: Any) -> Any:
    """Int32 in the order of the magnitudes: floats above zero sort like their bits."""
    return tf.bitcast(tf.abs(tf.cast(leaf, tf.float32)), tf.int32)


def _least_kept(magnitudes: Any, sparsity: Any) -> Any:
    """The magnitude of rank ``round(size * (1 - sparsity))``, found bit by bit.

    31 counts are ten times faster than sorting millions of weights.
    """
    size = tf.cast(tf.size(magnitudes), tf.float64)
    kept = tf.maximum(tf.cast(tf.round(size * (1.0 - sparsity)), tf.int32), 1)

    def try_bit(i: Any, found: Any) -> tuple[Any, Any]:
        tried = tf.bitwise.bitwise_or(found, tf.bitwise.left_shift(1, 30 - i))
        enough = tf.reduce_sum(tf.cast(magnitudes >= tried, tf.int32)) >= kept
        return i + 1, tf.where(enough, tried, found)

    zero = tf.constant(0, tf.int32)
    _, found = tf.while_loop(
        lambda i, _: i < 31, try_bit, (zero, zero), maximum_iterations=31
    )
    return found


def _two_of_four(leaf: Any) -> Any:
    last_two = [*range(leaf.shape.rank - 2), leaf.shape.rank - 1, leaf.shape.rank - 2]
    magnitudes = tf.transpose(tf.abs(leaf), last_two)
    num_inputs = magnitudes.shape[-1]
    whole = num_inputs - num_inputs % 4
    groups = tf.reshape(magnitudes[..., :whole], [-1, 4])
    largest = tf.math.top_k(groups, k=2).indices
    kept = tf.reduce_sum(tf.one_hot(largest, 4), axis=1) > 0
    mask = tf.reshape(kept, [*magnitudes.shape[:-1], whole])
    rest = tf.ones_like(magnitudes[..., whole:], tf.bool)
    return tf.transpose(tf.concat([mask, rest], -1), last_two)


def _masked(kernels: Sequence[bool] | None, masks: Any, trainable: Any) -> Any:
    return map_kernels(_mask, masks, trainable, kernels)


def _within(kernels: Sequence[bool] | None, masks: Any, trainable: Any) -> Any:
    return map_kernels(
        lambda mask, leaf: unchanged(leaf, partial(_mask, mask)),
        masks,
        trainable,
        kernels,
    )


def _mask(mask: Any, leaf: Any) -> Any:
    return tf.where(mask, leaf, tf.zeros_like(leaf))


def _label(sparsity: float | Sparsity) -> str:
    return "schedule" if callable(sparsity) else f"{sparsity:g}"


def _check_sparsity(**values: float) -> None:
    validate.non_negative(**values)
    for name, value in values.items():
        if value >= 1:
            raise ConfigError(
                f"{name} must be in [0, 1), got {value!r}; 0.8 prunes four in five."
            )
