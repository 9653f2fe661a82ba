"""One-time masks: AES-256-CTR key streams added to and taken from a vector, in chunks.

The vector is uint32 and its arithmetic is modulo 2^32. A client adds the stream of its
own seed, and for each pair the stream both know: the one whose id comes first adds it,
the other takes it away, so that it cancels in the sum.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import ConfigError, WireError
from fedtrain.core.keystream import KeyStream

Vector = npt.NDArray[np.uint32]
CHUNK_WORDS = 64 * 1024
_SELF = "fedtrain.secagg.v1 self mask"
_PAIR = "fedtrain.secagg.v1 pair mask"


def self_mask(seed: bytes, *, session: bytes, client_id: str) -> KeyStream:
    """The stream of a client's own seed, 32 bytes."""
    return KeyStream(seed, _SELF, session, client_id)


def pair_mask(
    pair_secret: bytes, *, session: bytes, pair: tuple[str, str]
) -> KeyStream:
    """The stream that a pair knows, from its X25519 secret for masking."""
    first, second = sorted(pair)
    return KeyStream(pair_secret, _PAIR, session, first, second)


def is_added(client_id: str, peer_id: str) -> bool:
    """Whether ``client_id`` adds the pair's mask; else it takes it away."""
    return client_id < peer_id


def apply(
    vector: Vector, *, added: Sequence[KeyStream], removed: Sequence[KeyStream]
) -> None:
    """Adds and takes away whole streams in place, modulo 2^32.

    Memory is that of one chunk beside the vector. Each stream is used up: a mask is for
    one vector.
    """
    for chunk in chunks(vector):
        for stream in added:
            np.add(chunk, _words(stream, chunk.size), out=chunk)
        for stream in removed:
            np.subtract(chunk, _words(stream, chunk.size), out=chunk)


def chunks(vector: Vector) -> Iterator[Vector]:
    """Views of at most ``CHUNK_WORDS`` words, in order."""
    for start in range(0, vector.size, CHUNK_WORDS):
        yield vector[start : start + CHUNK_WORDS]


def content(vector: Vector) -> Iterator[bytes]:
    """The words as they cross the wire: little-endian, in chunks of 256 KiB."""
    for chunk in chunks(vector):
        yield chunk.astype("<u4", copy=False).tobytes()


def content_sha256(vector: Vector) -> bytes:
    """SHA-256 of ``content``, 32 bytes."""
    digest = hashlib.sha256()
    for part in content(vector):
        digest.update(part)
    return digest.digest()


def received(parts: Iterable[bytes], length: int) -> tuple[Vector, bytes]:
    """The vector of ``length`` words in ``content``'s parts, and their SHA-256.

    Raises:
      WireError: If the parts are not exactly so long.
    """
    vector = np.empty(length, "<u4")
    space = vector.data.cast("B")
    digest = hashlib.sha256()
    filled = 0
    for part in parts:
        end = filled + len(part)
        if end > len(space):
            raise WireError(f"More than the {len(space)} bytes of a vector arrived.")
        space[filled:end] = part
        digest.update(part)
        filled = end
    if filled < len(space):
        raise WireError(f"{filled} of the {len(space)} bytes of a vector arrived.")
    return vector.astype(np.uint32, copy=False), digest.digest()


def check_vector(vector: Vector, length: int) -> None:
    """Refuses what is no whole, writeable vector of ``length`` words in one piece.

    Raises:
      ConfigError: With what it is instead.
    """
    flags = vector.flags
    if vector.dtype != np.uint32 or vector.shape != (length,):
        raise ConfigError(
            f"vector must be uint32 of shape ({length},), got {vector.dtype} of shape "
            f"{vector.shape}. Encode the contribution first."
        )
    if not (flags.c_contiguous and flags.writeable):
        raise ConfigError("vector must be contiguous and writeable; pass a copy.")


def _words(stream: KeyStream, num: int) -> npt.NDArray[np.uint32]:
    words = stream.words((num + 1) // 2).view("<u4")[:num]
    return words if sys.byteorder == "little" else words.astype(np.uint32)
