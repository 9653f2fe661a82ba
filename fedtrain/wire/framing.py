"""Messages of one field of bytes, written and read without protobuf's copies.

Chunks are nearly all of the traffic. Parsed, written again and compared, as strangers'
messages are (``fedtrain.wire.decoding``), a chunk is copied three times. The few bytes
before its content are the only ones that protobuf writes there, so comparing those is
the same check.

Source:
  https://protobuf.dev/programming-guides/encoding/, length-delimited records.
"""

_LENGTH_DELIMITED = 2
_MOST_HEAD_BYTES = 6  # a number of the field, and a length below 2^35


def framed(field: int, content: bytes | memoryview) -> bytes:
    """The message whose only field, number ``field`` (1 to 15), is ``content``."""
    return b"".join((_head(field, len(content)), content))


def content_of(field: int, message: bytes) -> memoryview | None:
    """What ``framed`` was given, as a view; None if ``message`` is anything else.

    A field without content is something else: protobuf may leave it out.
    """
    for num_head in range(2, min(_MOST_HEAD_BYTES, len(message) - 1) + 1):
        head = _head(field, len(message) - num_head)
        if len(head) == num_head and message.startswith(head):
            return memoryview(message)[num_head:]
    return None


def _head(field: int, length: int) -> bytes:
    head = bytearray([field << 3 | _LENGTH_DELIMITED])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head)
