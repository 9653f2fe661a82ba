"""Arrays as bytes: little-endian, one after the other, in an order fixed beforehand.

Nothing in the bytes says what they are. Both sides know the specifications from the
plan, so a length is checked before anything is allocated, and decoding is a view; but
an array that is declared as packed is written shorter, and decoding is a copy.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import WireError
from fedtrain.core.packing import Packing
from fedtrain.wire.packed import check_packing, packed, packed_bytes, unpacked

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
      packing: How it is written in fewer bytes; None writes every number whole.
    """

    shape: tuple[int, ...]
    dtype: DType
    packing: Packing | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES:
            allowed = ", ".join(_TYPES)
            raise WireError(f"dtype must be one of {allowed}; got {self.dtype!r}.")
        if len(self.shape) > _MOST_AXES or min(self.shape, default=0) < 0:
            raise WireError(
                f"shape must be at most {_MOST_AXES} lengths of at least 0, "
                f"got {self.shape}."
            )
        if self.plain_bytes > _MOST_BYTES:
            raise WireError(f"An array of shape {self.shape} has more than 2^40 bytes.")
        if self.packing is not None:
            check_packing(self.packing, self.size, self.dtype)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def plain_bytes(self) -> int:
        """Length of its numbers, each written whole."""
        return self.size * _TYPES[self.dtype].itemsize

    @property
    def num_bytes(self) -> int:
        """Length of the array on the wire."""
        if self.packing is None:
            return self.plain_bytes
        return packed_bytes(self.packing, self.size, _TYPES[self.dtype].itemsize)

    @property
    def is_step(self) -> bool:
        """Whether it is a single float: packed arrays after it are multiples of it."""
        return self.shape == () and self.dtype.startswith("float")

    @classmethod
    def of(cls, array: Array, packing: Packing | None = None) -> "ArraySpec":
        """The specification that ``array`` has."""
        name: Any = array.dtype.name  # checked where it is made
        return cls(array.shape, name, packing)


def num_bytes(specs: Sequence[ArraySpec]) -> int:
    """Length of arrays of these ``specs`` on the wire."""
    return sum(spec.num_bytes for spec in specs)


def chunks(specs: Sequence[ArraySpec], arrays: Sequence[Array]) -> Iterator[bytes]:
    """The bytes of ``arrays`` in full chunks of 256 KiB, the last one shorter.

    An array is copied whole only if it is not contiguous, not little-endian, or packed.

    Raises:
      WireError: At the first use, if the arrays are not of these ``specs``; later, if
        one is not what its packing says.
    """
    _check_same(specs, arrays)
    waiting = b""
    step: Array | None = None
    for spec, array in zip(specs, arrays, strict=True):
        view = _as_bytes(array)
        if spec.packing is not None:
            numbers = np.frombuffer(view, _TYPES[spec.dtype])
            view = _view(packed(spec.packing, numbers, step))
        step = array if spec.is_step else step
        while view:
            num_missing = CHUNK_BYTES - len(waiting)
            waiting += bytes(view[:num_missing])
            view = view[num_missing:]
            if len(waiting) == CHUNK_BYTES:
                yield waiting
                waiting = b""
    if waiting:
        yield waiting


def to_bytes(specs: Sequence[ArraySpec], arrays: Sequence[Array]) -> bytes:
    """The bytes of ``arrays`` at once, for small ones."""
    return b"".join(chunks(specs, arrays))


def from_bytes(
    specs: Sequence[ArraySpec], data: bytes | bytearray | memoryview | Array
) -> list[Array]:
    """Arrays that are views of ``data``: bytes, or a memory map of a file.

    Raises:
      WireError: If the length is not that of ``specs``, a truth value is not 0 or 1, or
        a packed array is not written as it must be.
    """
    view = _view(data)
    expected = num_bytes(specs)
    if len(view) != expected:
        raise WireError(
            f"The arrays take {expected} bytes, but {len(view)} were received."
        )
    arrays: list[Array] = []
    start = 0
    step: Array | None = None
    for spec in specs:
        arrays.append(_array_at(spec, view[start : start + spec.num_bytes], step))
        start += spec.num_bytes
        step = arrays[-1] if spec.is_step else step
    return arrays


def parts_of_packed(spec: ArraySpec, data: Any, step: Any) -> Iterator[Array]:
    """The numbers of one packed array, in order, at most 256 Ki of them at a time.

    Args:
      spec: With a packing.
      data: Its bytes.
      step: The last single float before it; None if there is none.

    Raises:
      WireError: While iterating, if it is not written as it must be.
    """
    if spec.packing is None:
        raise WireError(f"An array of type {spec.dtype} is not packed.")
    return unpacked(
        spec.packing,
        np.frombuffer(_view(data), np.uint8),
        size=spec.size,
        dtype=_TYPES[spec.dtype],
        step=step,
    )


def all_finite(arrays: Sequence[Array]) -> bool:
    """Whether no array holds a NaN or an infinity; takes memory for one chunk."""
    return all(_is_finite(array) for array in arrays)


def _array_at(spec: ArraySpec, view: memoryview, step: Array | None) -> Array:
    if spec.packing is not None:
        parts = [np.empty(0, spec.dtype), *parts_of_packed(spec, view, step)]
        return np.concatenate(parts).reshape(spec.shape)
    flat = np.frombuffer(view.toreadonly(), dtype=_TYPES[spec.dtype])
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
