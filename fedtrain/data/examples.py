"""Rows of one client, as arrays with a common first dimension."""

import itertools
import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import DataError

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Rows as arrays, in memory or memory-mapped.

    Attributes:
      features: One array [rows, ...], or a dict of such arrays for several inputs.
      labels: Array [rows, ...].
      weights: Optional float array [rows] that multiplies each row's loss.
      entity_ids: Optional integer array [rows]: rows with the same number belong to the
        same customer or patient.
    """

    features: Any
    labels: Array
    weights: Array | None = None
    entity_ids: Array | None = None

    def __post_init__(self) -> None:
        """All arrays have the same number of rows."""
        for name, array in self._arrays():
            if len(array) != self.num_examples:
                raise DataError(
                    f"{name} has {len(array)} rows but labels has {self.num_examples}; "
                    "every array needs one entry for each row."
                )

    @property
    def num_examples(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def slice(self, start: int, stop: int) -> "Examples":
        """Rows ``start`` to ``stop``, without copying."""
        return self._map(lambda array: array[start:stop])

    def split(self, offsets: npt.NDArray[np.int64]) -> list["Examples"]:
        """Rows ``offsets[i]`` to ``offsets[i + 1]`` for each i, without copying."""
        bounds = list(itertools.pairwise(offsets.tolist()))

        def pieces(array: Array | None) -> list[Any]:
            if array is None:
                return [None] * len(bounds)
            return [array[start:stop] for start, stop in bounds]

        if isinstance(self.features, dict):
            parts = {name: pieces(array) for name, array in self.features.items()}
            features: Any = [
                dict(zip(parts, own, strict=True))
                for own in zip(*parts.values(), strict=True)
            ]
        else:
            features = pieces(self.features)
        columns = (features, *map(pieces, (self.labels, self.weights, self.entity_ids)))
        return [
            Examples(features=x, labels=y, weights=w, entity_ids=e)
            for x, y, w, e in zip(*columns, strict=True)
        ]

    def row_bytes(self) -> int:
        """Bytes of one row over all arrays."""
        return sum(
            array.dtype.itemsize * math.prod(array.shape[1:])
            for array in self._all_arrays()
        )

    def take(self, indices: npt.NDArray[np.integer[Any]]) -> "Examples":
        """Copies of the rows at ``indices``."""
        return self._map(lambda array: array[indices])

    def let_go(self) -> None:
        """Gives the memory of mapped rows back: what is looked at is mapped again.

        Otherwise a process that reads a few clients here and there ends up with all of
        a large file in its memory. A mapping that can be written to is left alone: what
        was written to a private copy of a page would be lost with it.
        """
        for array in self._all_arrays():
            mapping = _mapping(array)
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                with memoryview(mapping) as view:
                    is_file = view.readonly
                if is_file:
                    mapping.madvise(mmap.MADV_DONTNEED)

    def _map(self, function: Any) -> "Examples":
        return Examples(
            features=map_arrays(function, self.features),
            labels=function(self.labels),
            weights=None if self.weights is None else function(self.weights),
            entity_ids=None if self.entity_ids is None else function(self.entity_ids),
        )

    def _all_arrays(self) -> list[Array]:
        return [self.labels, *(array for _, array in self._arrays())]

    def _arrays(self) -> list[tuple[str, Array]]:
        named = feature_arrays(self.features)
        optional = [("weights", self.weights), ("entity_ids", self.entity_ids)]
        return named + [(name, array) for name, array in optional if array is not None]


def _mapping(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def map_arrays(function: Any, features: Any) -> Any:
    """Applies ``function`` to one array, or to each of a dict of arrays."""
    if isinstance(features, dict):
        return {name: function(array) for name, array in features.items()}
    return function(features)


def feature_arrays(features: Any) -> list[tuple[str, Array]]:
    """The feature arrays with their names."""
    if isinstance(features, dict):
        return [(f"features[{name!r}]", array) for name, array in features.items()]
    return [("features", features)]


def concatenate(parts: list[Examples]) -> Examples:
    """The rows of several clients, one after another."""
    first = parts[0]
    join = np.concatenate

    def optional(name: str) -> Array | None:
        arrays = [getattr(part, name) for part in parts]
        return None if getattr(first, name) is None else join(arrays)

    if isinstance(first.features, dict):
        features: Any = {
            name: join([part.features[name] for part in parts])
            for name in first.features
        }
    else:
        features = join([part.features for part in parts])
    return Examples(
        features=features,
        labels=join([part.labels for part in parts]),
        weights=optional("weights"),
        entity_ids=optional("entity_ids"),
    )
