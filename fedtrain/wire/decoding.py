"""Messages from strangers' bytes: of a limited length, and written in the one way.

Protobuf accepts unknown fields, fields twice and numbers written too long. A signature
covers what was understood, so here a message is refused unless it is, byte for byte,
what this software would have written.
"""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from fedtrain.core.errors import WireError
from fedtrain.wire.arrays import CHUNK_BYTES

MOST_MESSAGE_BYTES = CHUNK_BYTES + 64 * 1024
_Message = TypeVar("_Message", bound=Message)


def decoded(
    message: type[_Message], data: bytes, *, most_bytes: int = MOST_MESSAGE_BYTES
) -> _Message:
    """The ``message`` in ``data``; for use as gRPC's deserialiser too.

    Raises:
      WireError: If it is too long, no such message, or written in another way.
    """
    name = message.DESCRIPTOR.name
    if len(data) > most_bytes:
        raise WireError(
            f"A {name} of {len(data)} bytes is refused; at most {most_bytes} are read."
        )
    found = message()
    try:
        found.ParseFromString(data)
    except DecodeError:
        raise WireError(f"These {len(data)} bytes are no {name}.") from None
    found.DiscardUnknownFields()
    if found.SerializeToString(deterministic=True) != data:
        raise WireError(f"A {name} is not written as fedtrain writes it.")
    return found
