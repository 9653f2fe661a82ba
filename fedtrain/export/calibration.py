"""Rows that activation ranges are measured on, without touching private rows.

Public rows where there are any, else rows drawn from what the schema declares. Ranges
of private rows would be a release; none is made here.
"""

from typing import Any, NamedTuple

import numpy as np

from fedtrain.core import seeds
from fedtrain.data.examples import Array, map_arrays
from fedtrain.data.schema import Column, Schema
from fedtrain.data.schema_encoding import encoded
from fedtrain.data.tables import Table
from fedtrain.export.source import Source

NUM_ROWS = 200


class Calibration(NamedTuple):
    """Feature rows, and where they come from.

    Attributes:
      features: As the model takes them, [rows, ...] or a dict of such.
      source: In words, for the record; every one of them spends no privacy.
    """

    features: Any
    source: str


def calibration_of(source: Source) -> Calibration | None:
    """Public training rows, else synthetic ones; None where neither is there."""
    if source.calibration is not None:
        return Calibration(_some(source.calibration), "public training rows")
    if source.schema is not None:
        return Calibration(synthetic(source.schema), "synthetic rows from the schema")
    return None


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


def _some(features: Any) -> Any:
    """A share of the rows, spread over all clients."""
    arrays = features.values() if isinstance(features, dict) else [features]
    num_rows = len(next(iter(arrays)))
    places = np.unique(np.linspace(0, num_rows - 1, NUM_ROWS).astype(np.int64))
    return map_arrays(lambda array: array[places], features)
