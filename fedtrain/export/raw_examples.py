"""A schema's encoding as TensorFlow operations: raw columns in, a model's features out.

The same arithmetic as ``fedtrain.data.schema_encoding``, in float64, within the
exported graph: what serves a model cannot encode its rows in another way than training
did. What training would have refused (an unknown category, a missing value where none
is allowed) is refused here too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.data.examples import Array
from fedtrain.data.schema import Column, Schema
from fedtrain.data.schema_encoding import COLUMNS
from fedtrain.data.tables import Table, numbers, texts

Inputs = Mapping[str, tf.Tensor]


def raw_signature(schema: Schema) -> dict[str, tf.TensorSpec]:
    """One input for each feature column, by its name.

    Numbers are float64 [rows] (NaN where missing), categories strings [rows] (empty
    where missing; whole numbers without a decimal point), arrays float32 [rows, ...].
    """
    return {column.name: _spec(column) for column in schema.features}


def encoded_in_graph(schema: Schema, inputs: Inputs) -> Any:
    """The features of raw ``inputs``, as ``schema_encoding.encoded`` gives them."""
    scalars = [column for column in schema.features if column.kind != "array"]
    features = {
        column.name: _array(column, inputs[column.name])
        for column in schema.features
        if column.kind == "array"
    }
    if scalars:
        parts = [_columns(column, inputs[column.name]) for column in scalars]
        features[COLUMNS] = tf.cast(tf.concat(parts, axis=1), tf.float32)
    return features if len(features) > 1 else next(iter(features.values()))


def raw_inputs(schema: Schema, table: Table) -> dict[str, Array]:
    """The columns of ``table`` as ``raw_signature`` takes them: a request's content."""
    return {column.name: _raw(column, table[column.name]) for column in schema.features}


def _raw(column: Column, values: Array) -> Array:
    if column.kind == "array":
        return values.astype(np.float32)
    return texts(values) if column.kind == "category" else numbers(values)


def _spec(column: Column) -> tf.TensorSpec:
    if column.kind == "array":
        return tf.TensorSpec([None, *column.shape], tf.float32, column.name)
    dtype = tf.string if column.kind == "category" else tf.float64
    return tf.TensorSpec([None], dtype, column.name)


def _columns(column: Column, values: tf.Tensor) -> tf.Tensor:
    if column.kind == "category":
        missing, encoded = _category(column, values)
    else:
        missing = tf.math.is_nan(values)
        scaled = _scaled(column, values)
        encoded = tf.where(missing, tf.zeros_like(scaled), scaled)[:, tf.newaxis]
    indicator = tf.cast(missing[:, tf.newaxis], tf.float64)
    if column.missing.allowed:
        return tf.concat([encoded, indicator], axis=1)
    message = f"column {column.name!r}: a value is missing, and none may be"
    with tf.control_dependencies(
        [tf.debugging.assert_none_equal(missing, True, message=message)]
    ):
        return tf.identity(encoded)


def _category(column: Column, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    known = column.categories.values if column.categories else ()
    hits = tf.equal(values[:, tf.newaxis], tf.constant(known, tf.string))
    # "" may itself be a category; it means a missing value only where it is none.
    missing = tf.equal(values, "") & ~tf.reduce_any(hits, axis=1)
    fits = tf.reduce_any(hits, axis=1) | missing
    message = f"column {column.name!r}: a value is not one of {', '.join(known[:20])}"
    with tf.control_dependencies(
        [tf.debugging.assert_equal(fits, True, message=message)]
    ):
        return missing, tf.cast(hits, tf.float64)


def _array(column: Column, values: tf.Tensor) -> tf.Tensor:
    if column.encoding == "keep" and column.whole:
        return tf.cast(values, tf.int32)
    return tf.cast(_scaled(column, tf.cast(values, tf.float64)), tf.float32)


def _scaled(column: Column, values: tf.Tensor) -> tf.Tensor:
    if column.encoding == "standardise" and column.moments is not None:
        return (values - column.moments.mean) / column.moments.stddev
    if column.encoding == "min_max" and column.range is not None:
        width = column.range.maximum - column.range.minimum
        return (values - column.range.minimum) / (width or 1.0)
    return values
