"""Arrays of few distinct numbers, or mostly zeros, as short bytes: nothing is lost.

- 8 bits: each number over the step as a signed byte, -127 to 127;
- 4 bits: two numbers in a byte, the first in its lower half, -7 to 7; a half that is
  left over is 0;
- kept numbers: their places (uint32, ascending), then the numbers, little-endian.

There is one way to write an array, and bytes written in another way are refused.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import WireError
from fedtrain.core.packing import Packing

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
_PART = 256 * 1024
_PLACE = np.dtype("<u4")


def packed_bytes(packing: Packing, size: int, itemsize: int) -> int:
    """Length on the wire of ``size`` numbers that take ``itemsize`` bytes each."""
    if packing.num_kept is not None:
        return packing.num_kept * (_PLACE.itemsize + itemsize)
    return size if packing.num_bits == 8 else math.ceil(size / 2)


def check_packing(packing: Packing, size: int, dtype: str) -> None:
    """Raises WireError unless arrays of this size and type can be written so."""
    kept = packing.num_kept or 0
    if not dtype.startswith("float") or not kept <= size < 2**32:
        raise WireError(
            f"An array of {size} numbers of type {dtype} cannot be written as "
            f"{packing}: it takes floats, fewer than 2^32, and keeps no more than "
            "there are."
        )


def packed(packing: Packing, numbers: Array, step: Array | None) -> bytes:
    """``numbers`` as bytes.

    Args:
      packing: What is known of them.
      numbers: One axis, little-endian.
      step: What they are multiples of; None if there is no such number.

    Raises:
      WireError: If they are not what ``packing`` says.
    """
    if packing.num_kept is not None:
        return _places_and_numbers(numbers, packing.num_kept)
    multiples = _multiples(packing, numbers, _known(step))
    if packing.num_bits == 8:
        return multiples.tobytes()
    halves = np.append(multiples, np.int8(0)) if len(multiples) % 2 else multiples
    low, high = halves.view(np.uint8).reshape([-1, 2]).T & 15
    return bytes((low | high << 4).tobytes())


def unpacked(
    packing: Packing, data: Bytes, *, size: int, dtype: np.dtype[Any], step: Any
) -> Iterator[Array]:
    """The numbers in ``data``, in order, at most 256 Ki of them at a time.

    Raises:
      WireError: If ``data`` is not as ``packed`` writes.
    """
    if packing.num_kept is not None:
        yield from _scattered(data, packing.num_kept, size=size, dtype=dtype)
        return
    factor = np.asarray(_known(step), dtype)
    for start in range(0, size, _PART):
        end = min(start + _PART, size)
        multiples = (
            data[start:end] if packing.num_bits == 8 else _halves(data, start, end)
        )
        signed = multiples.view(np.int8)
        if signed.size and signed.min() < -packing.most:
            raise WireError(
                f"A multiple of a step is at least {-packing.most}; a smaller one was "
                "received."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            yield signed.astype(dtype) * factor


def _multiples(packing: Packing, numbers: Array, step: Array) -> npt.NDArray[np.int8]:
    with np.errstate(all="ignore"):
        exact = np.rint(numbers / step) if step else np.zeros_like(numbers)
    # NaN times any multiple is NaN: an update that is not finite arrives as such.
    multiples = np.nan_to_num(exact, copy=False, nan=0.0)
    in_range = np.all(np.abs(multiples) <= packing.most)
    if not in_range or not np.array_equal(multiples * step, numbers, equal_nan=True):
        raise WireError(
            f"The numbers are not multiples of {float(step):g} of at most "
            f"{packing.most} in size."
        )
    return multiples.astype(np.int8)


def _places_and_numbers(numbers: Array, num_kept: int) -> bytes:
    places = np.flatnonzero(numbers)
    if len(places) > num_kept:
        raise WireError(
            f"At most {num_kept} numbers other than 0 were declared; there are "
            f"{len(places)}."
        )
    if len(places) < num_kept:
        zeros = np.flatnonzero(numbers == 0)[: num_kept - len(places)]
        places = np.sort(np.concatenate([places, zeros]))
    return places.astype(_PLACE).tobytes() + numbers[places].tobytes()


def _scattered(
    data: Bytes, num_kept: int, *, size: int, dtype: np.dtype[Any]
) -> Iterator[Array]:
    split = num_kept * _PLACE.itemsize
    places = np.frombuffer(data[:split], _PLACE)
    numbers = np.frombuffer(data[split:], dtype)
    if np.any(places[1:] <= places[:-1]) or np.any(places[-1:] >= size):
        raise WireError(
            f"The places of kept numbers must ascend below {size}; others came."
        )
    for start in range(0, size, _PART):
        part = np.zeros(min(_PART, size - start), dtype)
        first, last = np.searchsorted(places, [start, start + len(part)])
        part[places[first:last] - start] = numbers[first:last]
        yield part


def _halves(data: Bytes, start: int, end: int) -> Bytes:
    """The numbers from ``start``, which is even, to ``end``, sign-extended."""
    pairs = data[start // 2 : math.ceil(end / 2)]
    both = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
    if np.any(both[end - start :]):
        raise WireError("The half byte after the last number must be 0.")
    return (both[: end - start] ^ 8) - np.uint8(8)


def _known(step: Array | None) -> Array:
    if step is None:
        raise WireError(
            "An array of multiples needs a single float before it, their step."
        )
    return step
