"""A stream of chunks whose length, hash and encoding were declared before it began.

What arrives is never more than was declared: the receiver stops at the first byte too
many, before and after decompression, so a small message cannot become a large one.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator

from fedtrain.core.errors import WireError
from fedtrain.wire.arrays import CHUNK_BYTES
from fedtrain.wire.messages_pb2 import RAW, ZLIB, Encoding

_LEVEL = 1
_Content = bytes | memoryview


def sent(chunks: Iterable[bytes], encoding: Encoding = RAW) -> Iterator[bytes]:
    """``chunks`` as they go over the wire; at most 256 KiB each if they came so."""
    _check_encoding(encoding)
    return iter(chunks) if encoding == RAW else _deflated(chunks)


def received(
    chunks: Iterable[_Content],
    *,
    num_bytes: int,
    sha256: bytes,
    encoding: Encoding = RAW,
) -> Iterator[_Content]:
    """The content of ``chunks``, as it arrives, at most 256 KiB at a time.

    Only when the iteration has ended without an error is the content what was declared.

    Args:
      chunks: As received.
      num_bytes: Length of the content, after decompression.
      sha256: Hash of the content, after decompression; 32 bytes.
      encoding: RAW or ZLIB, as declared.

    Raises:
      WireError: While iterating: at the first byte too many, or at the end.
    """
    digest = hashlib.sha256()
    found = 0
    for chunk in bounded(chunks, num_bytes=num_bytes, encoding=encoding):
        found += len(chunk)
        digest.update(chunk)
        yield chunk
    if found != num_bytes:
        raise WireError(f"{num_bytes} bytes were declared, {found} arrived.")
    if digest.digest() != sha256:
        raise WireError(
            "The bytes that arrived do not have the hash that was declared."
        )


def bounded(
    chunks: Iterable[_Content], *, num_bytes: int, encoding: Encoding = RAW
) -> Iterator[_Content]:
    """As ``received``, for callers that check its length and hash themselves.

    Raises:
      WireError: While iterating, at the first byte too many.
    """
    _check_encoding(encoding)
    if encoding == RAW:
        return _bounded(chunks, num_bytes)
    return _inflated(chunks, num_bytes)


def _bounded(chunks: Iterable[_Content], num_bytes: int) -> Iterator[_Content]:
    left = num_bytes
    for chunk in chunks:
        left -= len(chunk)
        if left < 0 or not chunk:
            raise WireError(
                f"At most {num_bytes} bytes belong here, in chunks not empty."
            )
        yield chunk


def _deflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(_LEVEL)
    waiting = bytearray()
    for chunk in chunks:
        waiting += stream.compress(chunk)
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    waiting += stream.flush()
    for start in range(0, len(waiting), CHUNK_BYTES):
        yield bytes(waiting[start : start + CHUNK_BYTES])


def _inflated(chunks: Iterable[_Content], num_bytes: int) -> Iterator[_Content]:
    stream = zlib.decompressobj()
    left = num_bytes
    for chunk in _bounded(chunks, _most_deflated(num_bytes)):
        rest: _Content = chunk
        while rest:
            if stream.eof:
                raise WireError("Bytes follow the end of a compressed stream.")
            content = _step(stream, rest)
            left -= len(content)
            if left < 0:
                raise WireError(f"{num_bytes} bytes were declared, more arrived.")
            rest = stream.unconsumed_tail or stream.unused_data
            if content:
                yield content
    if not stream.eof:
        raise WireError("A compressed stream ends too early.")


def _step(stream: "zlib._Decompress", data: _Content) -> bytes:
    try:
        return stream.decompress(data, CHUNK_BYTES)
    except zlib.error as error:
        raise WireError(f"This is no compressed stream: {error}.") from None


def _most_deflated(num_bytes: int) -> int:
    """What zlib makes of bytes that cannot be compressed, and then some."""
    return num_bytes + num_bytes // 100 + 64 * 1024


def _check_encoding(encoding: Encoding) -> None:
    if encoding not in (RAW, ZLIB):
        raise WireError(f"Encoding {encoding} is not known here; RAW always is.")
