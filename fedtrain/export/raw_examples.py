"""A schema's encoding as TensorFlow operations: raw columns in, a model's features out.

The same arithmetic as ``fedtrain.data.schema_encoding``, in float64, within the
exported graph: what serves a model cannot encode its rows in another way than training
did. What training would have refused (an unknown category, a missing value where none
is allowed) is refused here too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.data.examples import Array
from fedtrain.data.schema import Column, Schema
from fedtrain.data.schema_encoding import COLUMNS
from fedtrain.data.tables import Table, numbers, texts

Inputs = Mapping[str, tf.Tensor]


def input_names(schema: Schema) -> dict[str, str]:
    """The name of each feature column's input, by the column's own name.

    The same where TensorFlow allows it: letters, digits and ``_``, a letter first, and
    no two alike but for capitals.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for column in schema.features:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", column.name)
        name = plain = plain if plain[:1].isalpha() else f"column_{plain}"
        number = 2
        while name.lower() in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name.lower())
        names[column.name] = name
    return names


def raw_signature(schema: Schema) -> dict[str, tf.TensorSpec]:
    """One input for each feature column, by its input name.

    Numbers are float64 [rows] (NaN where missing), categories strings [rows] (empty
    where missing; whole numbers without a decimal point), arrays float32 [rows, ...].
    """
    names = input_names(schema)
    columns = {names[column.name]: column for column in schema.features}
    return {name: _spec(column, name) for name, column in columns.items()}


def raw_inputs(schema: Schema, table: Table) -> dict[str, Array]:
    """The columns of ``table`` as ``raw_signature`` takes them: a request's content."""
    names = input_names(schema)
    return {names[c.name]: _raw(c, table[c.name]) for c in schema.features}


def encoded_in_graph(schema: Schema, inputs: Inputs) -> Any:
    """The features of raw ``inputs``, as ``schema_encoding.encoded`` gives them."""
    names = input_names(schema)
    given = {column.name: inputs[names[column.name]] for column in schema.features}
    scalars = [column for column in schema.features if column.kind != "array"]
    features = {
        column.name: _array(column, given[column.name])
        for column in schema.features
        if column.kind == "array"
    }
    if scalars:
        features[COLUMNS] = tf.cast(_columns(scalars, given), tf.float32)
    return features if len(features) > 1 else next(iter(features.values()))


def _spec(column: Column, name: str) -> tf.TensorSpec:
    if column.kind == "array":
        return tf.TensorSpec([None, *column.shape], tf.float32, name)
    dtype = tf.string if column.kind == "category" else tf.float64
    return tf.TensorSpec([None], dtype, name)


def _raw(column: Column, values: Array) -> Array:
    if column.kind == "array":
        return values.astype(np.float32)
    return texts(values) if column.kind == "category" else numbers(values)


def _columns(columns: Sequence[Column], given: Inputs) -> tf.Tensor:
    """All numbers at once, which a served row waits less for than one by one."""
    parts: dict[str, list[tf.Tensor]] = {}
    of_numbers = [column for column in columns if column.kind == "number"]
    if of_numbers:
        values, missing = _numbers(of_numbers, given)
        if len(of_numbers) == len(columns) and not any(_indicates(c) for c in columns):
            return values
        for i, column in enumerate(of_numbers):
            parts[column.name] = [values[:, i : i + 1], missing[:, i : i + 1]]
    for column in columns:
        if column.kind == "category":
            parts[column.name] = list(_category(column, given[column.name]))
    kept = [parts[c.name] if _indicates(c) else parts[c.name][:1] for c in columns]
    return tf.concat([part for both in kept for part in both], axis=1)


def _indicates(column: Column) -> bool:
    return column.missing.allowed


def _numbers(columns: Sequence[Column], given: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
    """Scaled values, and 1 where one is missing; both float64 [rows, columns]."""
    values = tf.stack([given[column.name] for column in columns], axis=1)
    missing = tf.math.is_nan(values)
    shifts, scales = zip(*map(_scale, columns), strict=True)
    scaled = (values - tf.constant(shifts, tf.float64)) / tf.constant(
        scales, tf.float64
    )
    refused = missing & tf.constant([not _indicates(c) for c in columns])
    names = tf.boolean_mask([c.name for c in columns], tf.reduce_any(refused, axis=0))
    message = "a value is missing, and none may be, in columns"
    check = tf.debugging.Assert(~tf.reduce_any(refused), [message, names])
    with tf.control_dependencies([check] if check is not None else []):
        filled = tf.where(missing, tf.zeros_like(scaled), scaled)
    return filled, tf.cast(missing, tf.float64)


def _category(column: Column, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """One-hot codes [rows, categories], and 1 where it is missing [rows, 1]."""
    known = column.categories.values if column.categories else ()
    hits = tf.equal(values[:, tf.newaxis], tf.constant(known, tf.string))
    is_known = tf.reduce_any(hits, axis=1)
    # "" may itself be a category; it means a missing value only where it is none.
    missing = tf.equal(values, "") & ~is_known
    fits = is_known | missing if _indicates(column) else is_known
    message = f"column {column.name!r}: a value is not one of {', '.join(known[:20])}:"
    unknown = tf.boolean_mask(values, ~fits)
    check = tf.debugging.Assert(tf.reduce_all(fits), [message, unknown])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.cast(hits, tf.float64), tf.cast(missing, tf.float64)[:, tf.newaxis]


def _array(column: Column, values: tf.Tensor) -> tf.Tensor:
    if column.encoding == "keep" and column.whole:
        return tf.cast(values, tf.int32)
    shift, scale = _scale(column)
    return tf.cast((tf.cast(values, tf.float64) - shift) / scale, tf.float32)


def _scale(column: Column) -> tuple[float, float]:
    """What is taken from a value, and what the rest is divided by."""
    if column.encoding == "standardise" and column.moments is not None:
        return column.moments.mean, column.moments.stddev
    if column.encoding == "min_max" and column.range is not None:
        width = column.range.maximum - column.range.minimum
        return column.range.minimum, width or 1.0
    return 0.0, 1.0
