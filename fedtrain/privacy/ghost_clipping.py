"""The sum of clipped gradients from one forward and one backward pass over the batch.

No unit's gradient is written down where its norm and its part of the sum follow from
what each layer was given and the gradient of what it gave ("ghost clipping"). These
saved gradients, scaled unit by unit, are used again for the sum, so there is no second
backward pass. Where it is not proved that rows stay apart, or where a weight is used in
a way that has no rule, the gradients of all rows are computed instead.

Source: Goodfellow (2015), https://arxiv.org/abs/1510.01799; Li et al. (2022), Large
language models can be strong differentially private learners,
https://arxiv.org/abs/2110.05679; Bu et al. (2022), https://arxiv.org/abs/2205.10683
(mixed ghost clipping, and the saved gradients in "Differentially private optimization
on large model at small cost", https://arxiv.org/abs/2210.00038).
"""

import functools
import logging
from threading import RLock
from typing import Any

import tensorflow as tf

from fedtrain.client_work.per_example import (
    per_example_gradients,
    refuse_mixing,
    row_losses,
)
from fedtrain.client_work.row_proof.fact import Fact
from fedtrain.client_work.row_proof.proof import operations_behind, row_facts
from fedtrain.client_work.unit_gradients import UnitGradients, together
from fedtrain.client_work.weight_uses import NotSeparableError, Use, weight_uses
from fedtrain.core import seeds
from fedtrain.models import keras_trace
from fedtrain.models.model import Batch, Model, ModelWeights
from fedtrain.privacy.clipping import (
    clip_factors,
    is_unclipped,
    sum_by_entity,
    sum_of_clipped,
)

_ROWS = Fact("rows")
_LOGGER = logging.getLogger(__name__)


def clipped_sum(
    model: Model,
    weights: ModelWeights,
    batch: Batch,
    seed: seeds.Seed,
    *,
    clipping_norm: float,
    rows_per_unit: int = 1,
) -> tuple[Any, Any]:
    """The sum over a batch's units of their clipped gradients, and the outputs.

    A row's loss is that of ``per_example_gradients``. Dropout masks are drawn for the
    whole batch at once, or, in the fallback, for each row from a seed of its own: both
    are independent draws for each row.

    Args:
      model: What is trained; layers that mix rows are refused.
      weights: Where the gradients are taken.
      batch: Rows; a padded row counts as zero.
      seed: Randomness of the batch.
      clipping_norm: Largest allowed L2 norm of one unit's gradient over all leaves.
      rows_per_unit: So many neighbouring rows are one unit (an entity), whose gradient
        is their sum.

    Returns:
      A nest like ``weights.trainable``, and the outputs [batch, ...] in training mode.

    Guarantees:
      Adding or removing one unit changes the sum by at most ``clipping_norm`` up to
      rounding. A unit whose gradient or squared norm is not finite counts as zero.

    Raises:
      PrivacyError: Some layer mixes rows, so a row has no gradient of its own.
    """
    total, outputs, _ = clipped_sum_and_count(
        model,
        weights,
        batch,
        seed,
        clipping_norm=clipping_norm,
        rows_per_unit=rows_per_unit,
    )
    return total, outputs


def clipped_sum_and_count(
    model: Model,
    weights: ModelWeights,
    batch: Batch,
    seed: seeds.Seed,
    *,
    clipping_norm: Any,
    rows_per_unit: int = 1,
) -> tuple[Any, Any, Any]:
    """``clipped_sum``, and how many units were not clipped, for adaptive clipping.

    Returns:
      The sum, the outputs, and a float32 scalar: a half for each unit whose gradient is
      at most ``clipping_norm`` long, less a half for each other one. A unit more or
      less changes it by a half.
    """
    refuse_mixing(model)
    function = _functions(model.forward, model.loss, rows_per_unit)
    bound = tf.cast(
        tf.convert_to_tensor(clipping_norm, dtype_hint=tf.float64), tf.float64
    )
    return function(weights, batch, tf.convert_to_tensor(seed, tf.int32), bound)


def obstacle(model: Model, weights: ModelWeights, batch: Batch) -> str | None:
    """Why ``clipped_sum`` computes every row's gradient; None where it does not."""
    seed, bound = tf.zeros([2], tf.int32), tf.ones([], tf.float64)
    function = _functions(model.forward, model.loss, 1)
    return function.obstacle(weights, batch, seed, bound)


@functools.lru_cache(maxsize=32)
def _functions(forward: Any, loss: Any, rows_per_unit: int) -> "_ClippedSum":
    model = Model(init=ModelWeights, forward=forward, loss=loss, metrics={})
    return _ClippedSum(model, rows_per_unit)


class _ClippedSum:
    """One traced function for each shape of weights and rows, whatever their number."""

    def __init__(self, model: Model, rows_per_unit: int) -> None:
        self._parts = (model, rows_per_unit)
        self._traced: dict[str, tuple[Any, str | None]] = {}
        self._lock = RLock()

    def __call__(self, *given: Any) -> Any:
        return self._function(given)[0](*given)

    def obstacle(self, *given: Any) -> str | None:
        """What kept the fast way from being used."""
        return self._function(given)[1]

    def _function(self, given: Any) -> tuple[Any, str | None]:
        specs = _open_specs(*tf.nest.map_structure(tf.convert_to_tensor, given))
        key = str(specs)
        with self._lock:
            if key not in self._traced:
                self._traced[key] = _trace(self._parts, specs)
            return self._traced[key]


def _open_specs(weights: Any, batch: Any, seed: Any, bound: Any) -> Any:
    fixed = functools.partial(tf.nest.map_structure, tf.TensorSpec.from_tensor)
    rows = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), batch
    )
    return fixed(weights), rows, fixed(seed), fixed(bound)


def _trace(parts: Any, specs: Any) -> tuple[Any, str | None]:
    ghost = tf.function(functools.partial(_ghost, *parts), autograph=False)
    try:
        with tf.init_scope():
            ghost.get_concrete_function(*specs)
    except NotSeparableError as reason:
        why = str(reason)
    except Exception as error:  # noqa: BLE001 - the plain way raises it again, or works
        why = f"tracing it for a whole batch failed: {error}"
    else:
        return ghost, None
    _LOGGER.info("Clipping computes the gradient of every row, because %s.", why)
    return functools.partial(_row_by_row, *parts), why


def _row_by_row(
    model: Model, rows_per_unit: int, weights: Any, batch: Batch, seed: Any, bound: Any
) -> tuple[Any, Any, Any]:
    gradients, outputs = per_example_gradients(model, weights, batch, seed)
    of_units = sum_by_entity(gradients, rows_per_unit)
    missing = -tf.shape(batch.mask)[0] % rows_per_unit
    mask = tf.pad(batch.mask, [[0, missing]])
    count = _centred_count(is_unclipped(of_units, bound), mask, rows_per_unit)
    return sum_of_clipped(of_units, bound), outputs, count


def _ghost(
    model: Model, rows_per_unit: int, weights: Any, batch: Batch, seed: Any, bound: Any
) -> tuple[Any, Any, Any]:
    num_rows = tf.shape(batch.mask)[0]
    batch = _whole_units(batch, rows_per_unit)
    with keras_trace.inlined():
        result = model.forward(weights, batch.features, training=True, seed=seed)
    losses = row_losses(model, batch, result.outputs)
    leaves = tf.nest.flatten(weights.trainable)
    uses = _proved_uses(losses, leaves, batch)
    gradients = _gradients(losses, uses, rows_per_unit)
    sums, unclipped = _clipped(leaves, gradients, bound)
    count = _centred_count(unclipped, batch.mask, rows_per_unit)
    outputs = result.outputs
    if rows_per_unit > 1:
        outputs = tf.nest.map_structure(lambda leaf: leaf[:num_rows], outputs)
    return tf.nest.pack_sequence_as(weights.trainable, sums), outputs, count


def _centred_count(unclipped: Any, mask: Any, rows_per_unit: int) -> Any:
    """A half for each unit that is unclipped, less a half for each that is not."""
    of_units = tf.reshape(mask, tf.stack([-1, rows_per_unit]))
    is_there = tf.cast(tf.reduce_max(of_units, axis=1) > 0, tf.float32)
    return tf.reduce_sum(is_there * (tf.cast(unclipped, tf.float32) - 0.5))


def _whole_units(batch: Batch, rows_per_unit: int) -> Batch:
    if rows_per_unit == 1:
        return batch
    missing = -tf.shape(batch.mask)[0] % rows_per_unit

    def filled(leaf: Any) -> Any:
        # What a padded place holds must not reach the unit that it belongs to.
        real = tf.reshape(batch.mask > 0, [-1] + [1] * (leaf.shape.rank - 1))
        kept = tf.where(real, leaf, tf.zeros_like(leaf))
        padded = tf.pad(kept, [[0, missing]] + [[0, 0]] * (leaf.shape.rank - 1))
        return tf.ensure_shape(padded, [None, *leaf.shape[1:]])

    return Batch(*tf.nest.map_structure(filled, tuple(batch)))


def _proved_uses(losses: Any, leaves: list[Any], batch: Batch) -> list[list[Use]]:
    """The uses of each leaf, once no row is found to meet another."""
    known = {leaf.name: _ROWS for leaf in tf.nest.flatten(batch)}
    facts = row_facts([losses], known)
    if facts[losses.name] != _ROWS:
        raise NotSeparableError(f"rows may meet in {_first_unknown(losses, facts)}")
    _refuse_foreign_captures(losses.graph)
    operations = operations_behind([losses], known)
    _check_own_gradients(operations, facts)
    return [weight_uses(leaf, operations, facts) for leaf in leaves]


def _first_unknown(losses: Any, facts: dict[str, Any]) -> str:
    for operation in operations_behind([losses]):
        if any(facts.get(tensor.name) is None for tensor in operation.outputs):
            return f"{operation.name} ({operation.type})"
    return f"the loss ({facts[losses.name]})"


def _refuse_foreign_captures(graph: Any) -> None:
    for outside, _ in graph.captures:
        if outside.dtype == tf.resource or not hasattr(outside, "numpy"):
            raise NotSeparableError(f"it reads {outside.name!r} from outside")


def _check_own_gradients(operations: list[Any], facts: dict[str, Any]) -> None:
    """A user's own gradient function is free to mix rows, so it is looked at too."""
    for operation in operations:
        if "_gradient_op_type" in operation.node_def.attr:
            _check_own_gradient(operation, facts)


def _check_own_gradient(operation: Any, facts: dict[str, Any]) -> None:
    pairs = zip(operation.outputs, operation.inputs, strict=True)
    for output, source in pairs:
        if not output.dtype.is_floating or facts[output.name].kind != "rows":
            continue
        incoming = tf.identity(output)
        known = facts | {incoming.name: facts[output.name]}
        moved = tf.gradients(output, list(operation.inputs), grad_ys=incoming)
        for gradient, source in zip(moved, operation.inputs, strict=True):
            if gradient is None or facts[source.name].kind != "rows":
                continue
            if row_facts([gradient], known)[gradient.name] != facts[source.name]:
                raise NotSeparableError(
                    f"the gradient of {operation.name} may mix rows"
                )


def _gradients(
    losses: Any, uses: list[list[Use]], rows_per_unit: int
) -> list[dict[str, tuple[Any, UnitGradients]]]:
    """For each leaf, its views by name, and the units' gradients of each."""
    flat = [use for group in uses for use in group]
    moved = tf.gradients(losses, [use.output for use in flat]) if flat else []
    of_output = {
        use.output.name: tf.convert_to_tensor(gradient)
        for use, gradient in zip(flat, moved, strict=True)
        if gradient is not None
    }
    return [_by_view(group, of_output, rows_per_unit) for group in uses]


def _by_view(
    uses: list[Use], of_output: dict[str, Any], rows_per_unit: int
) -> dict[str, tuple[Any, UnitGradients]]:
    parts: dict[str, tuple[Any, list[UnitGradients]]] = {}
    for use in uses:
        if use.output.name in of_output:
            own = use.gradients(of_output[use.output.name], rows_per_unit)
            parts.setdefault(use.view.name, (use.view, []))[1].append(own)
    found = {}
    for name, (view, part) in parts.items():
        gradients = together(part)
        if gradients is None:
            raise NotSeparableError(f"{name} is used in several ways")
        found[name] = view, gradients
    return found


def _clipped(
    leaves: list[Any], gradients: list[dict[str, Any]], bound: Any
) -> tuple[list[Any], Any]:
    """The sums, and which units were within the bound: bool [units], or for all."""
    parts = [part for views in gradients for _, part in views.values()]
    if not parts:
        return [tf.zeros_like(leaf) for leaf in leaves], tf.constant(value=True)
    squares = [tf.cast(part.squared_norms(), tf.float64) for part in parts]
    factors, kept = clip_factors(tf.add_n(squares), bound)
    sums = [
        _leaf_sum(leaf, views, factors[:, tf.newaxis], kept[:, tf.newaxis])
        for leaf, views in zip(leaves, gradients, strict=True)
    ]
    return sums, factors >= 1.0


def _leaf_sum(leaf: Any, views: dict[str, Any], factors: Any, kept: Any) -> Any:
    if not views:
        return tf.zeros_like(leaf)
    seen, sums = [], []
    for view, part in views.values():
        seen.append(view)
        sums.append(
            part.scaled_sum(tf.cast(factors, view.dtype), tf.cast(kept, view.dtype))
        )
    if len(seen) == 1 and seen[0] is leaf:
        return sums[0]
    return tf.convert_to_tensor(tf.gradients(seen, leaf, grad_ys=sums)[0])
