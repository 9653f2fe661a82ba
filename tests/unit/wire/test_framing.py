"""Frames are the bytes that protobuf writes, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.framing import content_of, framed


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 262_144])
def test_a_frame_is_what_protobuf_writes(size):
    content = bytes(size)
    assert framed(1, content) == pb.Chunk(content=content).SerializeToString()
    part = pb.SubmitPart(content=content).SerializeToString()
    assert framed(2, memoryview(content)) == part
    assert content_of(2, part) == content


@given(content=st.binary(min_size=1, max_size=300), data=st.data())
def test_a_changed_frame_gives_what_protobuf_reads_or_nothing(content, data):
    message = bytearray(framed(2, content))
    position = data.draw(st.integers(0, len(message) - 1))
    message[position] ^= data.draw(st.integers(1, 255))
    found = content_of(2, bytes(message))
    if found is not None:
        part = pb.SubmitPart.FromString(bytes(message))
        assert part.content == found
        assert part.SerializeToString() == message


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x12",
        b"\x12\x00",  # no content
        b"\x12\x02a",  # too short
        b"\x12\x01ab",  # too long
        b"\x12\x81\x00a",  # a length written too long
        b"\x0a\x01a",  # another field
        framed(2, b"a") * 2,
    ],
)
def test_anything_else_is_not_taken(message):
    assert content_of(2, message) is None
