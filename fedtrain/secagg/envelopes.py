"""Messages under their sender's identity key, each for one session and one step.

The signature covers session, kind, sender and body, length-prefixed below a domain of
its own: no message can be taken for one of another round, step or sender, and the
roster's hash in each ties them to the plan. Signed messages are evidence.
"""

import hashlib
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from google.protobuf.message import Message

from fedtrain.core.errors import WireError
from fedtrain.secagg.blame import Blame, BreachError, UnauthenticError
from fedtrain.secagg.messages_pb2 import Envelope
from fedtrain.wire.decoding import decoded

MOST_MESSAGE_BYTES = 1024 * 1024
_DOMAIN = b"fedtrain.secagg.v1 message"
_Body = TypeVar("_Body", bound=Message)


def encoded(message: Message) -> bytes:
    """The one way to write ``message``."""
    return message.SerializeToString(deterministic=True)


def sha256(data: bytes) -> bytes:
    """SHA-256 of ``data``, 32 bytes."""
    return hashlib.sha256(data).digest()


def framed(*fields: bytes) -> bytes:
    """Each field with its length before it, so that no two lists look alike."""
    return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


def enveloped(
    kind: Any, body: Message, *, session: bytes, sender: str, key: Ed25519PrivateKey
) -> Envelope:
    """``body`` signed by ``sender`` for one session and step."""
    envelope = Envelope(session=session, kind=kind, sender=sender, body=encoded(body))
    envelope.signature = key.sign(_signed_bytes(envelope))
    return envelope


def parsed(data: bytes) -> Envelope:
    """The envelope in ``data``, of which nothing is checked but its form.

    Raises:
      UnauthenticError: If it is none, or too long.
    """
    try:
        return decoded(Envelope, data, most_bytes=MOST_MESSAGE_BYTES)
    except WireError as error:
        raise UnauthenticError(str(error)) from None


def check_signed(
    envelope: Envelope, kind: Any, *, session: bytes, key: Ed25519PublicKey
) -> None:
    """Checks that the owner of ``key`` signed ``envelope`` for this session and step.

    Raises:
      UnauthenticError: If not.
    """
    name = envelope.sender or "the aggregator"
    if envelope.session != session:
        raise UnauthenticError(f"A message of {name} is of another session.")
    if envelope.kind != kind:
        raise UnauthenticError(f"A message of {name} is of kind {envelope.kind}.")
    try:
        key.verify(envelope.signature, _signed_bytes(envelope))
    except InvalidSignature:
        raise UnauthenticError(f"A signature is not that of {name}.") from None


def body_of(envelope: Envelope, body: type[_Body]) -> _Body:
    """The body of an envelope whose signature was checked.

    Raises:
      BreachError: If it is no such message: its signer is to blame.
    """
    try:
        return decoded(body, envelope.body, most_bytes=MOST_MESSAGE_BYTES)
    except WireError as error:
        blame = Blame((envelope.sender,), str(error), proven=True)
        raise BreachError(blame) from None


def _signed_bytes(envelope: Envelope) -> bytes:
    return framed(
        _DOMAIN,
        envelope.session,
        int(envelope.kind).to_bytes(4, "big"),
        envelope.sender.encode(),
        sha256(envelope.body),
    )
