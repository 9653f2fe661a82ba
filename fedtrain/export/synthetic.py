"""Rows drawn from what a schema declares, or from a shape: nothing is private."""

from typing import Any

import numpy as np

from fedtrain.core import seeds
from fedtrain.data.examples import Array, map_arrays
from fedtrain.data.schema import Column, Schema
from fedtrain.data.schema_encoding import encoded
from fedtrain.data.tables import Table

NUM_ROWS = 200


def synthetic(schema: Schema, num_rows: int = NUM_ROWS) -> Any:
    """Features of the rows of ``synthetic_table``."""
    plain = schema.model_copy(update={"client": None, "entity": None, "weight": None})
    return encoded(plain, synthetic_table(schema, num_rows)).features


def synthetic_table(schema: Schema, num_rows: int = NUM_ROWS) -> Table:
    """Raw rows drawn column by column from what ``schema`` says, and nothing else."""
    seed = seeds.derive(seeds.root(0), "calibration", schema.hash)
    return {
        column.name: _drawn(column, num_rows, seeds.derive(seed, column.name))
        for column in schema.columns
    }


def _drawn(column: Column, num_rows: int, seed: seeds.Seed) -> Array:
    random = seeds.generator(seed)
    if column.kind == "category":
        values = column.categories.values if column.categories else ("",)
        return np.array(values, object)[random.integers(len(values), size=num_rows)]
    shape = (num_rows, *column.shape)
    low, high = _bounds(column)
    drawn = random.uniform(low, high, size=shape)
    if column.moments is not None:
        drawn = random.normal(column.moments.mean, column.moments.stddev, size=shape)
        drawn = np.clip(drawn, low, high)
    return np.round(drawn) if column.whole else drawn


def _bounds(column: Column) -> tuple[float, float]:
    if column.range is not None:
        return column.range.minimum, column.range.maximum
    if column.moments is not None:
        spread = 4.0 * column.moments.stddev
        return column.moments.mean - spread, column.moments.mean + spread
    return 0.0, 1.0


def shaped_like(features: Any, num_rows: int = NUM_ROWS) -> Any:
    """Features of the shapes and types of ``features``, whose values are not read.

    Floats are uniform in [0, 1), whole numbers 0 or 1.
    """
    random = seeds.generator(seeds.derive(seeds.root(0), "shaped_like"))

    def drawn(array: Array) -> Array:
        shape = (num_rows, *array.shape[1:])
        is_float = array.dtype.kind == "f"
        values = random.random(shape) if is_float else random.integers(2, size=shape)
        return values.astype(array.dtype)

    return map_arrays(drawn, features)
