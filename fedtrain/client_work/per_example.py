"""The gradient of each row of a batch by itself, which example-level clipping needs.

Three ways, tried in this order when a batch is traced: gradients of all rows
vectorised; only the forward pass vectorised, over stacked copies of the weights
(recurrent layers need that); one row after another. All give the same numbers.

Source: Abadi et al. (2016), https://arxiv.org/abs/1607.00133, Algorithm 1.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.core.graphs import operation_names
from fedtrain.models import keras_trace
from fedtrain.models.model import Batch, ForwardPass, Model, ModelWeights, mean_loss

Forward = Callable[..., ForwardPass]


def per_example_gradients(
    model: Model, weights: ModelWeights, batch: Batch, seed: seeds.Seed
) -> tuple[Any, Any]:
    """The gradient of each row's own loss, and the outputs.

    A row's loss is that of a batch which holds only this row, without the penalty: its
    weight times its total over its count. The penalty does not depend on the data: add
    ``penalty_gradients`` after the noise, where it is free, not before the clipping.

    Args:
      model: What is trained.
      weights: Where the gradients are taken.
      batch: Rows; a padded row gives exactly zero.
      seed: Randomness of the batch; each row draws its own dropout masks.

    Returns:
      A nest like ``weights.trainable`` with a leading batch axis on every leaf, and the
      outputs [batch, ...] in training mode.

    Raises:
      PrivacyError: Some layer mixes rows, so a row has no gradient of its own.
    """
    refuse_mixing(model)
    return _traced(model)(weights, batch, seed)


def refuse_mixing(model: Model) -> None:
    """Raises PrivacyError where one row's output depends on other rows."""
    if model.mixing_layers:
        layers = ", ".join(model.mixing_layers)
        raise PrivacyError(
            f"{model.name} mixes the rows of a batch in {layers}, so no row has a "
            "gradient of its own; use LayerNormalization or GroupNormalization instead."
        )


def row_losses(model: Model, batch: Batch, outputs: Any) -> tf.Tensor:
    """Each row's own loss, [batch], from the outputs of the whole batch.

    That of a batch of this row only: its weight times its total over its count.
    """
    losses = model.loss(batch.labels, outputs)
    mask = tf.cast(batch.mask, losses.total.dtype)
    weights = mask * tf.cast(batch.weights, losses.total.dtype)
    count = mask * tf.cast(losses.count, losses.total.dtype)
    return weights * losses.total / tf.maximum(count, 1.0)


def penalty_gradients(model: Model, weights: ModelWeights, batch: Batch) -> Any:
    """The gradient of the regularisation penalty, a nest like ``weights.trainable``.

    None where the model has no penalty that depends on its weights.

    Guarantees:
      Computed on one row of zeros shaped like the batch's rows, so it cannot depend on
      any row, whatever the model does.
    """
    features = tf.nest.map_structure(
        lambda leaf: tf.zeros([1, *leaf.shape[1:]], leaf.dtype), batch.features
    )
    gradients = _traced_penalty(model.forward)(weights, features)
    if not gradients:
        return None
    return tf.nest.pack_sequence_as(weights.trainable, gradients)


@functools.lru_cache(maxsize=32)
def _traced_penalty(forward: Forward) -> Any:
    def gradients(weights: ModelWeights, features: Any) -> list[Any]:
        seed = tf.zeros([2], tf.int32)
        with tf.GradientTape() as tape, keras_trace.inlined():
            tape.watch(weights.trainable)
            result = forward(weights, features, training=True, seed=seed)
            penalty = tf.convert_to_tensor(result.penalty)
        leaves = tf.nest.flatten(weights.trainable)
        found = tape.gradient(penalty, leaves)
        if all(gradient is None for gradient in found):
            return []
        return [
            tf.zeros_like(leaf) if gradient is None else tf.convert_to_tensor(gradient)
            for leaf, gradient in zip(leaves, found, strict=True)
        ]

    return tf.function(gradients, autograph=False, reduce_retracing=True)


def _traced(model: Model) -> Any:
    return _traced_by_parts(model.forward, model.loss)


@functools.lru_cache(maxsize=32)
def _traced_by_parts(forward: Forward, loss: Any) -> Any:
    """One traced function for each model, so that eager steps do not trace again."""
    model = Model(init=ModelWeights, forward=forward, loss=loss, metrics={})

    def gradients(weights: ModelWeights, batch: Batch, seed: Any) -> tuple[Any, Any]:
        row_seeds = seeds.split(seed, tf.shape(batch.mask)[0])
        given = (weights, batch, row_seeds)
        result, outputs = _first_that_traces(model, given)(*given)
        return tf.nest.map_structure(
            lambda leaf: _zero_padding(leaf, batch.mask), result
        ), outputs

    return tf.function(gradients, autograph=False, reduce_retracing=True)


def _first_that_traces(model: Model, given: Any) -> Any:
    for strategy in _candidates(_operations(model, given)):
        function = tf.function(functools.partial(strategy, model), autograph=False)
        if _traces(function, given):
            return function
    return functools.partial(_one_after_another, model)


def _candidates(operations: set[str]) -> list[Any]:
    # Vectorised gradients of attention end the process in TensorFlow 2.21 with oneDNN.
    if "Einsum" in operations:
        return []
    # There its products of batches of unlike shapes write outside of their memory.
    if operations & {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"}:
        return [_forward_vectorised]
    # Gradients of a loop cannot be vectorised, and finding out takes half a minute.
    if operations & {"While", "StatelessWhile"}:
        return [_forward_vectorised]
    return [_gradients_vectorised, _forward_vectorised]


def _operations(model: Model, given: Any) -> set[str]:
    weights, *rows = given
    first = tf.nest.map_structure(lambda leaf: leaf[0], rows)
    probe = tf.function(functools.partial(_row_loss, model), autograph=False)
    return operation_names(probe.get_concrete_function(weights, *first).graph)


def _traces(function: Any, given: Any) -> bool:
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # a failed attempt is no news
    try:
        function.get_concrete_function(*given)
    except Exception:  # noqa: BLE001 - what cannot be vectorised raises all sorts
        return False
    finally:
        logger.setLevel(level)
    return True


def _gradients_vectorised(
    model: Model, weights: ModelWeights, batch: Batch, row_seeds: Any
) -> tuple[Any, Any]:
    return tf.vectorized_map(
        lambda row: _row_gradients(model, weights, *row),
        (batch, row_seeds),
        fallback_to_while_loop=False,
    )


def _forward_vectorised(
    model: Model, weights: ModelWeights, batch: Batch, row_seeds: Any
) -> tuple[Any, Any]:
    rows = tf.shape(batch.mask)[0]
    stacked = tf.nest.map_structure(
        lambda leaf: tf.repeat(leaf[tf.newaxis], rows, axis=0), weights.trainable
    )

    def one(given: Any) -> tuple[Any, Any]:
        trainable, row, seed = given
        own = ModelWeights(trainable, weights.state)
        return _row_loss(model, own, row, seed)

    with tf.GradientTape() as tape:
        tape.watch(stacked)
        losses, outputs = tf.vectorized_map(
            one, (stacked, batch, row_seeds), fallback_to_while_loop=False
        )
        total = tf.reduce_sum(losses)
    # Rows do not meet in the sum, so its gradient holds every row's own.
    return _dense_gradients(tape, total, stacked), outputs


def _one_after_another(
    model: Model, weights: ModelWeights, batch: Batch, row_seeds: Any
) -> tuple[Any, Any]:
    trainable = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), weights.trainable
    )
    probe = tf.function(functools.partial(_row_gradients, model), autograph=False)
    first = tf.nest.map_structure(lambda leaf: leaf[0], (batch, row_seeds))
    _, outputs = probe.get_concrete_function(weights, *first).structured_outputs
    signature = tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), outputs
    )
    return tf.map_fn(
        lambda row: probe(weights, *row),
        (batch, row_seeds),
        fn_output_signature=(trainable, signature),
    )


def _row_gradients(
    model: Model, weights: ModelWeights, row: Batch, seed: Any
) -> tuple[Any, Any]:
    with tf.GradientTape() as tape:
        tape.watch(weights.trainable)
        loss, outputs = _row_loss(model, weights, row, seed)
    return _dense_gradients(tape, loss, weights.trainable), outputs


def _row_loss(
    model: Model, weights: ModelWeights, row: Batch, seed: Any
) -> tuple[Any, Any]:
    alone = tf.nest.map_structure(lambda leaf: tf.expand_dims(leaf, 0), row)
    result = model.forward(weights, alone.features, training=True, seed=seed)
    loss = mean_loss(model, alone, result.outputs)
    return loss, tf.nest.map_structure(lambda leaf: leaf[0], result.outputs)


def _dense_gradients(tape: tf.GradientTape, target: Any, sources: Any) -> Any:
    gradients = tape.gradient(target, sources, unconnected_gradients="zero")
    return tf.nest.map_structure(tf.convert_to_tensor, gradients)


def _zero_padding(gradients: Any, mask: Any) -> Any:
    # Not a product: a padded row may give a NaN, and NaN times zero is NaN.
    places = tf.reshape(mask > 0, [-1] + [1] * (gradients.shape.rank - 1))
    return tf.where(places, gradients, tf.zeros_like(gradients))
