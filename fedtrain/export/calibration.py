"""Where ranges of activations come from, and what that costs in privacy.

Public rows where there are any, else rows drawn from what the schema declares: both
cost nothing. Ranges of private rows are a release: measured by a query that is noised
and charged, or, when asked for by name, raw, and then no guarantee is left.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import map_arrays
from fedtrain.export.activation_ranges import Ranges, paid_ranges
from fedtrain.export.source import ServedModel, Source
from fedtrain.export.synthetic import NUM_ROWS, synthetic

RAW_ROWS = "RAW PRIVATE training rows, without noise"


class Calibration(NamedTuple):
    """Feature rows, and where they come from.

    Attributes:
      features: As the model takes them, [rows, ...] or a dict of such.
      source: In words, for the record.
      ranges: Of activations by tensor, where these were paid for; ``features`` then
        only show the converter which tensors there are.
    """

    features: Any
    source: str
    ranges: Ranges | None = None


def calibration_of(source: Source, kind: str | None = None) -> Calibration | None:
    """The ranges, or the rows to measure them on.

    Args:
      source: The model and its run.
      kind: ``export.calibration``; None for the best that spends no privacy: public
        training rows, else synthetic ones, else nothing (None).

    Raises:
      ConfigError: If what ``kind`` asks for is not there.
    """
    if kind is not None:
        return _KINDS[kind](source)
    if source.calibration is not None:
        return _public(source)
    return None if source.schema is None else _synthetic(source)


def with_raw_calibration(source: Source) -> Source:
    """``source`` as what it is once raw private rows may calibrate it."""
    if source.calibration is not None:
        return source
    return replace(source, status="raw_calibration")


def _public(source: Source) -> Calibration:
    if source.calibration is None:
        raise ConfigError(
            'export.calibration = "public", but the training rows are private. Use '
            '"schema", or "private_query", which is paid for.'
        )
    return Calibration(_some(source.calibration), "public training rows")


def _synthetic(source: Source) -> Calibration:
    if source.schema is None:
        raise ConfigError(
            f'export.calibration = "schema", but {source.name} has no schema.'
        )
    return Calibration(synthetic(source.schema), "synthetic rows from the schema")


def _raw(source: Source) -> Calibration:
    if source.calibration is not None:
        return _public(source)
    train = source.run.project().split.train
    return Calibration(_some(train.examples.features), RAW_ROWS)


def _paid(source: Source) -> Calibration:
    if source.calibration is not None:
        return _public(source)
    if source.payment is None:
        raise ConfigError("Ranges by a private query need export.calibration_epsilon.")
    rows = _some(source.evaluation.features)
    ranges = paid_ranges(
        ServedModel(source), rows, source.run.project().split.train, source.payment
    )
    return Calibration(rows, "noised ranges of private rows, paid for", ranges)


_KINDS: dict[str, Callable[[Source], Calibration]] = {
    "public": _public,
    "schema": _synthetic,
    "private_query": _paid,
    "raw_private": _raw,
}


def _some(features: Any) -> Any:
    """A share of the rows, spread over all clients."""
    arrays = features.values() if isinstance(features, dict) else [features]
    num_rows = len(next(iter(arrays)))
    places = np.unique(np.linspace(0, num_rows - 1, NUM_ROWS).astype(np.int64))
    return map_arrays(lambda array: array[places], features)
