import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import WireError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import decoded

MESSAGES = [
    pb.SignedRequest,
    pb.HelloRequest,
    pb.NextRequest,
    pb.FetchRequest,
    pb.SubmitHeader,
    pb.SubmitPart,
    pb.RenewRequest,
    pb.HelloReply,
    pb.Task,
    pb.Chunk,
    pb.Receipt,
    pb.RenewReply,
]


def test_what_was_written_is_read():
    request = pb.SignedRequest(client_id="bank-a", round_number=2**32 - 1, body=b"x")
    assert decoded(pb.SignedRequest, request.SerializeToString()) == request


@settings(deadline=None)
@given(st.sampled_from(MESSAGES), st.binary(max_size=400))
def test_any_bytes_become_exactly_themselves_or_an_error(message, data):
    tracemalloc.start()
    try:
        assert decoded(message, data).SerializeToString() == data
    except WireError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * len(data) + 50_000


def test_too_long_a_message_is_refused_unread():
    with pytest.raises(WireError, match="at most 10"):
        decoded(pb.Chunk, bytes(11), most_bytes=10)


@pytest.mark.parametrize(
    "data",
    [
        b"\x98\x06\x01",  # a field that nobody knows
        b"\x18\x01\x18\x02",  # a round number twice
        b"\x18\xff\xff\xff\xff\x1f",  # a round number of more than 32 bits
        b"\x18\x00",  # a zero that is written
    ],
    ids=["unknown field", "field twice", "number too long", "written default"],
)
def test_what_protobuf_lets_pass_is_refused(data):
    pb.SignedRequest.FromString(data)
    with pytest.raises(WireError, match="not written as fedtrain writes it"):
        decoded(pb.SignedRequest, data)
