import hashlib
import itertools
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import WireError
from fedtrain.wire.arrays import CHUNK_BYTES
from fedtrain.wire.messages_pb2 import RAW, ZLIB
from fedtrain.wire.transfer import received, sent

both_encodings = pytest.mark.parametrize("encoding", [RAW, ZLIB], ids=["raw", "zlib"])


def digest(content):
    return hashlib.sha256(content).digest()


def arrived(chunks, content, encoding):
    return b"".join(
        received(
            chunks, num_bytes=len(content), sha256=digest(content), encoding=encoding
        )
    )


@both_encodings
@settings(deadline=None)
@given(parts=st.lists(st.binary(min_size=1, max_size=300), max_size=6))
def test_what_was_sent_arrives(encoding, parts):
    content = b"".join(parts)
    assert arrived(sent(parts, encoding), content, encoding) == content


@both_encodings
def test_chunks_stay_small(encoding):
    content = bytes(range(256)) * 4 * 1024
    whole = [content[: len(content) // 4]] * 4
    parts = [
        part[start : start + CHUNK_BYTES]
        for part in whole
        for start in range(0, len(part), CHUNK_BYTES)
    ]
    over_the_wire = list(sent(parts, encoding))
    assert max(map(len, over_the_wire)) <= CHUNK_BYTES
    assert arrived(over_the_wire, b"".join(parts), encoding) == b"".join(parts)


@both_encodings
def test_shorter_longer_and_other_content_is_refused(encoding):
    content = b"weights" * 100
    for other in (content[:-1], content + b"!", content[:-1] + b"!", b""):
        with pytest.raises(WireError):
            arrived(sent([other] if other else [], encoding), content, encoding)


@both_encodings
@settings(deadline=None)
@given(chunks=st.lists(st.binary(max_size=100), max_size=6))
def test_any_bytes_arrive_or_are_refused(encoding, chunks):
    content = b"".join(chunks)
    try:
        found = arrived(iter(chunks), content, encoding)
    except WireError:
        return
    assert found == content


def test_a_small_message_does_not_become_a_large_one():
    bomb = zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    with pytest.raises(WireError, match="more arrived"):
        arrived([bomb], bytes(1_000_000), ZLIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 + 2 * CHUNK_BYTES


@both_encodings
def test_an_endless_stream_of_nothing_ends(encoding):
    with pytest.raises(WireError, match="not empty"):
        arrived(itertools.repeat(b""), b"content", encoding)


def test_blocks_that_hold_nothing_are_counted():
    stream = zlib.compressobj()
    empty = stream.compress(b"") + stream.flush(zlib.Z_FULL_FLUSH)
    with pytest.raises(WireError, match="At most"):
        arrived(itertools.chain([empty], itertools.repeat(empty[2:])), b"x", ZLIB)


def test_bytes_after_the_end_are_refused():
    with pytest.raises(WireError, match="follow the end"):
        arrived([zlib.compress(b"content") + b"more"], b"content", ZLIB)


def test_an_unknown_encoding_is_refused():
    with pytest.raises(WireError, match="Encoding 7"):
        arrived([b"x"], b"x", 7)
