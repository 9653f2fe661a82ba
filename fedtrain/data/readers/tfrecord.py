"""TFRecord files of ``tf.train.Example``."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.core.errors import DataError
from fedtrain.data.examples import Array
from fedtrain.data.readers.storage import local_path
from fedtrain.data.tables import Table

_COMPRESSIONS = {".gz": "GZIP", ".zlib": "ZLIB"}


def table(source: str, text_columns: Iterable[str] | None = None) -> Table:
    """The rows of a TFRecord file: one column for each feature.

    A feature of one value is a number or a text, one of several values an array.

    Args:
      source: Path or URL; ``.gz`` and ``.zlib`` are decompressed.
      text_columns: Not used: features have types of their own.
    """
    del text_columns
    endings = [of for end, of in _COMPRESSIONS.items() if source.endswith(end)]
    records = tf.data.TFRecordDataset(local_path(source), "".join(endings))
    try:
        rows = [_row(record) for record in records.as_numpy_iterator()]
    except (tf.errors.DataLossError, ValueError) as error:
        raise DataError(
            f"{source} is not a file of tf.train.Example: {error}"
        ) from error
    names = sorted(set().union(*rows))
    return {
        name: _column(source, name, [row.get(name) for row in rows]) for name in names
    }


def _row(record: bytes) -> dict[str, Any]:
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:
        raise ValueError(str(error)) from error
    return {name: _values(feature) for name, feature in features.items()}


def _values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    if kind == "bytes_list":
        values = [value.decode() for value in values]
    return values[0] if len(values) == 1 else (values or None)


def _column(source: str, name: str, values: list[Any]) -> Array:
    lengths = {len(value) for value in values if isinstance(value, list)}
    if not lengths:
        gaps = any(value is None for value in values)
        is_text = any(isinstance(value, str) for value in values)
        return np.array(values, object if is_text else np.float64 if gaps else None)
    row = next((i for i, value in enumerate(values) if not _has(value, lengths)), None)
    if row is not None or len(lengths) > 1:
        raise DataError(
            f"{source}: feature {name!r} has {sorted(lengths)} values in some rows"
            f"{'' if row is None else f' and one or none in row {row}'}; every row "
            "needs the same number."
        )
    return np.array(values)


def _has(value: Any, lengths: set[int]) -> bool:
    return isinstance(value, list) and len(value) in lengths
