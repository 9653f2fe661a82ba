"""A schema's encoding as TensorFlow operations: raw columns in, a model's features out.

The same arithmetic as ``fedtrain.data.schema_encoding``, in float64, within the
exported graph: what serves a model cannot encode its rows in another way than training
did. What training would have refused (an unknown category, a missing value where none
is allowed) is refused here too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
        features[COLUMNS] = _columns(scalars, given)
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


class _Part(NamedTuple):
    """Encoded columns.

    Attributes:
      values: Float32 [rows, labels].
      labels: What each stands for: a column's name, and the place of a category among
        the known ones, or -1 for whether a value is missing.
    """

    values: tf.Tensor
    labels: list[tuple[str, int]]


def _columns(columns: Sequence[Column], given: Inputs) -> tf.Tensor:
    """All numbers at once and all categories at once, then in the schema's order.

    A served row waits for the number of operations more than for their work.
    """
    parts = [
        encode(own, tf.stack([given[column.name] for column in own], axis=1))
        for encode, own in (
            (_numbers, [column for column in columns if column.kind == "number"]),
            (_categories, [column for column in columns if column.kind == "category"]),
        )
        if own
    ]
    found = [label for part in parts for label in part.labels]
    asked = [label for column in columns for label in _labels(column)]
    joined = tf.concat([part.values for part in parts], axis=1)
    if found == asked:
        return joined
    return tf.gather(joined, [found.index(label) for label in asked], axis=1)


def _labels(column: Column) -> list[tuple[str, int]]:
    count = len(_known(column)) if column.kind == "category" else 1
    return [*((column.name, i) for i in range(count)), *_missing_labels([column])]


def _missing_labels(columns: Sequence[Column]) -> list[tuple[str, int]]:
    return [(column.name, -1) for column in columns if column.missing.allowed]


def _known(column: Column) -> tuple[str, ...]:
    return column.categories.values if column.categories else ()


def _numbers(columns: Sequence[Column], values: tf.Tensor) -> _Part:
    missing = tf.math.is_nan(values)
    shifts, scales = zip(*map(_scale, columns), strict=True)
    scaled = (values - tf.constant(shifts, tf.float64)) / tf.constant(
        scales, tf.float64
    )
    filled = tf.where(missing, tf.zeros_like(scaled), scaled)
    messages = [f"a value is missing, and none may be, in {c.name!r}:" for c in columns]
    checked = _unless(missing & ~_optional(columns), filled, messages, values)
    labels = [(column.name, 0) for column in columns]
    return _with_missing(columns, _Part(checked, labels), missing)


def _categories(columns: Sequence[Column], values: tf.Tensor) -> _Part:
    known = [value for column in columns for value in _known(column)]
    owners = [i for i, column in enumerate(columns) for _ in _known(column)]
    hits = tf.gather(values, tf.constant(owners, tf.int32), axis=1) == tf.constant(
        known, tf.string
    )
    codes = tf.cast(hits, tf.float32)
    is_known = codes @ np.eye(len(columns), dtype=np.float32)[owners] > 0.0
    # "" may itself be a category; it means a missing value only where it is none.
    missing = (values == "") & ~is_known
    messages = [
        f"column {c.name!r}: a value is not one of {', '.join(_known(c)[:20])}:"
        for c in columns
    ]
    fits = is_known | missing & _optional(columns)
    checked = _unless(~fits, codes, messages, values)
    labels = [label for column in columns for label in _labels(column) if label[1] >= 0]
    return _with_missing(columns, _Part(checked, labels), missing)


def _optional(columns: Sequence[Column]) -> tf.Tensor:
    return tf.constant([column.missing.allowed for column in columns])


def _with_missing(columns: Sequence[Column], part: _Part, missing: tf.Tensor) -> _Part:
    """``part`` and, for columns that allow it, 1 where a value is missing."""
    places = [i for i, column in enumerate(columns) if column.missing.allowed]
    values = tf.cast(part.values, tf.float32)
    if places:
        flags = tf.cast(tf.gather(missing, places, axis=1), tf.float32)
        values = tf.concat([values, flags], axis=1)
    return _Part(values, part.labels + _missing_labels(columns))


def _unless(
    refused: tf.Tensor, encoded: tf.Tensor, messages: Sequence[str], values: tf.Tensor
) -> tf.Tensor:
    """``encoded``, unless some value is refused; only then is a message put together.

    Args:
      refused: Bool [rows, columns].
      encoded: What is passed on.
      messages: For each column.
      values: As they were given, [rows, columns].
    """

    def fail() -> tf.Tensor:
        told = tf.boolean_mask(messages, tf.reduce_any(refused, axis=0))
        data = [told, tf.boolean_mask(values, refused)]
        with tf.control_dependencies([tf.raw_ops.Assert(condition=False, data=data)]):
            return tf.identity(encoded)

    return tf.cond(tf.reduce_any(refused), fail, lambda: encoded)


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
