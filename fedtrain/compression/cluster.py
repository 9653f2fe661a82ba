"""Weight sharing: a kernel holds few distinct values, which fine-tuning moves.

The values come from k-means in one dimension. Zeros stay zeros, so that sharing can
follow pruning.

Source: Han, Mao and Dally (2016), Deep Compression, https://arxiv.org/abs/1510.00149,
section 3 (linear start, gradients collected by value).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from fedtrain.compression.constraint import (
    Constraint,
    kernel_leaves,
    map_kernels,
    unchanged,
)
from fedtrain.core import validate
from fedtrain.core.errors import ConfigError

Start = Literal["linear", "density"]

# Below this the operation that every way of running clients knows is fast enough.
_LARGE = 2**16


def clustered(
    num_clusters: int,
    *,
    start: Start = "linear",
    num_iterations: int = 200,
    keep_zeros: bool = True,
    kernels: Sequence[bool] | None = None,
) -> Constraint:
    """Each kernel holds at most ``num_clusters`` distinct values.

    Which weights share a value is derived from the weights; weights that share one
    move together, by the mean of what each would do. Weights that are already shared
    stay shared in the same way.

    Args:
      num_clusters: Distinct values of a kernel, the zero included; 2 to 256.
      start: Where k-means starts: ``"linear"`` spreads values evenly over the range,
        which keeps the few large weights; ``"density"`` over the ranks.
      num_iterations: Of k-means, at most. None from a linear start rounds more, but
        most weights then share few values: 30 instead of 42 kB after gzip, say.
      keep_zeros: Whether zeros are a cluster of their own that never moves.
      kernels: Which leaves are clustered; see ``kernel_leaves``.
    """
    validate.positive_integer(num_clusters=num_clusters)
    validate.one_of(("linear", "density"), start=start)
    validate.non_negative(num_iterations=num_iterations)
    if not 2 <= num_clusters <= 256:
        raise ConfigError(f"num_clusters must be from 2 to 256, got {num_clusters}.")

    centroids = partial(
        _centroids,
        num_centroids=num_clusters - int(keep_zeros),
        start=start,
        num_iterations=num_iterations,
        keep_zeros=keep_zeros,
    )
    # One graph: its loop would take seconds operation by operation.
    assigned = tf.function(
        partial(_assignments, centroids, num_clusters, keep_zeros), autograph=False
    )

    def derive(trainable: Any, round_number: Any) -> tuple[Any, ...]:
        del round_number
        leaves = kernel_leaves(trainable, kernels)
        return tuple(assigned(tf.convert_to_tensor(leaf)) for leaf in leaves)

    def apply(assignments: Any, trainable: Any) -> Any:
        tie = partial(_tied, keep_zeros)
        return map_kernels(tie, assignments, trainable, kernels)

    def within(assignments: Any, trainable: Any) -> Any:
        def tied(clusters: _Clusters, leaf: Any) -> Any:
            return unchanged(leaf, partial(_means, keep_zeros, clusters))

        return map_kernels(tied, assignments, trainable, kernels)

    return Constraint(derive, apply, apply, f"clustered({num_clusters})", within)


class _Clusters(NamedTuple):
    """Which weights share a value.

    Attributes:
      members: The cluster of each weight, int32 of the leaf's shape; kept zeros have 0.
      sizes: Weights of each cluster, float64.
    """

    members: Any
    sizes: Any


def _assignments(
    centroids: Callable[[Any], Any],
    num_clusters: int,
    keep_zeros: bool,  # noqa: FBT001 - bound by partial
    leaf: Any,
) -> _Clusters:
    values = tf.reshape(tf.cast(leaf, tf.float32), [-1])
    nearest = tf.searchsorted(_midpoints(centroids(values)), values, side="right")
    if keep_zeros:
        nearest = tf.where(values == 0.0, 0, nearest + 1)
    ones = tf.ones_like(values, tf.float64)
    sizes = _cluster_sums(ones, nearest, num_clusters)
    return _Clusters(tf.reshape(nearest, leaf.shape), sizes)


def _centroids(
    values: Any,
    *,
    num_centroids: int,
    start: Start,
    num_iterations: int,
    keep_zeros: bool,
) -> Any:
    """K-means of numbers by Lloyd's iterations; rising, float32 [num_centroids].

    Sorted once, a cluster is a stretch of the numbers, and its mean a difference of two
    running sums.
    """
    if keep_zeros:  # they are most of a pruned kernel, and slow to sort; one is enough
        values = tf.concat([[0.0], tf.boolean_mask(values, values != 0.0)], 0)
    ordered = tf.sort(values)
    counted = ordered != 0.0 if keep_zeros else tf.ones_like(ordered, tf.bool)
    ones = tf.cast(counted, tf.float64)
    counts = _running(ones)
    sums = _running(ones * tf.cast(ordered, tf.float64))

    def improve(centroids: Any, moved: Any) -> tuple[Any, Any]:
        del moved
        cuts = tf.searchsorted(ordered, _midpoints(centroids))
        bounds = tf.concat([[0], cuts, [tf.size(ordered)]], 0)
        size, total = (_differences(tf.gather(run, bounds)) for run in (counts, sums))
        means = tf.cast(tf.math.divide_no_nan(total, size), tf.float32)
        better = tf.where(size > 0, means, centroids)
        return better, tf.reduce_any(better != centroids)

    first = _first_centroids(ordered, counted, num_centroids, start)
    centroids, _ = tf.while_loop(
        lambda _, moved: moved,
        improve,
        (first, tf.constant(value=True)),
        maximum_iterations=num_iterations,
    )
    return centroids


def _first_centroids(
    ordered: Any, counted: Any, num_centroids: int, start: Start
) -> Any:
    """Spread over the ranks of the distinct values, or over the range.

    Where there are no more distinct values than centroids, each is one: weights that
    are shared already keep their clusters.
    """
    differs = tf.concat([[True], ordered[1:] != ordered[:-1]], 0)
    ranks = tf.cumsum(tf.cast(counted & differs, tf.int32))
    num_distinct = ranks[-1]
    first, last = tf.ones([], tf.float64), tf.cast(num_distinct, tf.float64)
    spread = tf.linspace(first, last, num_centroids)
    wanted = tf.cast(tf.round(spread), tf.int32)
    places = tf.minimum(tf.searchsorted(ranks, wanted), tf.size(ordered) - 1)
    by_rank = tf.gather(ordered, places)
    if start == "density":
        return by_rank
    even = tf.linspace(by_rank[0], by_rank[-1], num_centroids)
    return tf.where(num_distinct <= num_centroids, by_rank, even)


def _tied(keep_zeros: bool, clusters: _Clusters, leaf: Any) -> Any:  # noqa: FBT001 - bound by partial
    """``_means``, a projection onto a subspace: the gradient is projected likewise."""
    project = partial(_means, keep_zeros, clusters)

    @tf.custom_gradient
    def projected(values: Any) -> tuple[Any, Any]:
        return project(values), project

    return projected(leaf)


def _means(keep_zeros: bool, clusters: _Clusters, values: Any) -> Any:  # noqa: FBT001 - bound by partial
    """The mean of each weight's cluster, in its place; zeros in place of kept zeros."""
    given = tf.reshape(tf.cast(values, tf.float64), [-1])
    members = tf.reshape(clusters.members, [-1])
    sums = _cluster_sums(given, members, clusters.sizes.shape[0])
    means = tf.math.divide_no_nan(sums, clusters.sizes)
    if keep_zeros:
        means = tf.concat([tf.zeros([1], tf.float64), means[1:]], 0)
    return tf.gather(tf.cast(means, values.dtype), clusters.members)


def _cluster_sums(values: Any, clusters: Any, num_clusters: int) -> Any:
    if values.shape[0] < _LARGE:
        return tf.math.unsorted_segment_sum(values, clusters, num_clusters)
    return tf.math.bincount(
        clusters,
        weights=values,
        minlength=num_clusters,
        maxlength=num_clusters,
        dtype=values.dtype,
    )


def _midpoints(centroids: Any) -> Any:
    return (centroids[1:] + centroids[:-1]) / 2.0


def _running(values: Any) -> Any:
    return tf.concat([tf.zeros([1], values.dtype), tf.cumsum(values)], 0)


def _differences(values: Any) -> Any:
    return values[1:] - values[:-1]
