"""Arrays as bytes: little-endian, one after the other, in an order fixed beforehand.

Nothing in the bytes says what they are. Both sides know the specifications from the
plan, so a length is checked before anything is allocated, and decoding is a view.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import WireError

Array = npt.NDArray[np.generic]
DType = Literal["float32", "float64", "int32", "int64", "uint32", "bool"]
CHUNK_BYTES = 256 * 1024
_MOST_BYTES = 2**40
_MOST_AXES = 16
_TYPES: dict[str, np.dtype[np.generic]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint32": np.dtype("<u4"),
    "bool": np.dtype("?"),
}


@dataclass(frozen=True)
class ArraySpec:
    """Shape and type of one array on the wire.

    Attributes:
      shape: Lengths of its axes; () for a single number.
      dtype: One of the six types that cross the wire.
    """

    shape: tuple[int, ...]
    dtype: DType

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES:
            allowed = ", ".join(_TYPES)
            raise WireError(f"dtype must be one of {allowed}; got {self.dtype!r}.")
        if len(self.shape) > _MOST_AXES or min(self.shape, default=0) < 0:
            raise WireError(
                f"shape must be at most {_MOST_AXES} lengths of at least 0, "
                f"got {self.shape}."
            )
        if self.num_bytes > _MOST_BYTES:
            raise WireError(f"An array of shape {self.shape} has more than 2^40 bytes.")

    @property
    def num_bytes(self) -> int:
        """Length of the array on the wire."""
        return math.prod(self.shape) * _TYPES[self.dtype].itemsize

    @classmethod
    def of(cls, array: Array) -> "ArraySpec":
        """The specification that ``array`` has."""
        return cls(array.shape, array.dtype.name)  # type: ignore[arg-type] # checked


def num_bytes(specs: Sequence[ArraySpec]) -> int:
    """Length of arrays of these ``specs`` on the wire."""
    return sum(spec.num_bytes for spec in specs)


def chunks(specs: Sequence[ArraySpec], arrays: Sequence[Array]) -> Iterator[bytes]:
    """The bytes of ``arrays`` in full chunks of 256 KiB, the last one shorter.

    An array is copied whole only if it is not contiguous or not little-endian.

    Raises:
      WireError: At the first use, if the arrays are not of these ``specs``.
    """
    _check_same(specs, arrays)
    waiting = bytearray()
    for array in arrays:
        view = _as_bytes(array)
        for start in range(0, len(view), CHUNK_BYTES):
            waiting += view[start : start + CHUNK_BYTES]
            if len(waiting) >= CHUNK_BYTES:
                yield bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)


def to_bytes(specs: Sequence[ArraySpec], arrays: Sequence[Array]) -> bytes:
    """The bytes of ``arrays`` at once, for small ones."""
    return b"".join(chunks(specs, arrays))


def from_bytes(
    specs: Sequence[ArraySpec], data: bytes | bytearray | memoryview | Array
) -> list[Array]:
    """Arrays that are views of ``data``: bytes, or a memory map of a file.

    Raises:
      WireError: If the length is not that of ``specs``, or a truth value is not 0 or 1.
    """
    view = _view(data)
    expected = num_bytes(specs)
    if len(view) != expected:
        raise WireError(
            f"The arrays take {expected} bytes, but {len(view)} were received."
        )
    arrays = []
    start = 0
    for spec in specs:
        arrays.append(_array_at(spec, view, start))
        start += spec.num_bytes
    return arrays


def all_finite(arrays: Sequence[Array]) -> bool:
    """Whether no array holds a NaN or an infinity; takes memory for one chunk."""
    return all(_is_finite(array) for array in arrays)


def _array_at(spec: ArraySpec, view: memoryview, start: int) -> Array:
    part = view[start : start + spec.num_bytes].toreadonly()
    flat = np.frombuffer(part, dtype=_TYPES[spec.dtype])
    if spec.dtype == "bool" and flat.size and flat.view(np.uint8).max() > 1:
        raise WireError(
            "A truth value on the wire is 0 or 1; another byte was received."
        )
    return flat.reshape(spec.shape)


def _as_bytes(array: Array) -> memoryview:
    ordered = np.ascontiguousarray(array, dtype=_TYPES[array.dtype.name])
    return _view(ordered.reshape(-1).view(np.uint8))


def _view(data: Any) -> memoryview:
    return memoryview(data).cast("B") if len(data) else memoryview(b"")


def _check_same(specs: Sequence[ArraySpec], arrays: Sequence[Array]) -> None:
    found = [(array.shape, array.dtype.name) for array in arrays]
    declared = [(spec.shape, spec.dtype) for spec in specs]
    if len(found) != len(declared):
        raise WireError(f"{len(declared)} arrays were declared, {len(found)} given.")
    for position, (have, want) in enumerate(zip(found, declared, strict=True)):
        if have != want:
            raise WireError(
                f"Array {position} has shape {have[0]} and type {have[1]}; "
                f"declared are shape {want[0]} and type {want[1]}."
            )


def _is_finite(array: Array) -> bool:
    if array.dtype.kind != "f":
        return True
    flat = array.reshape(-1)
    step = CHUNK_BYTES // array.dtype.itemsize
    return all(
        bool(np.isfinite(flat[start : start + step]).all())
        for start in range(0, flat.size, step)
    )
