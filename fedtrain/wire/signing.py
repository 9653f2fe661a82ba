"""Requests signed by a partner's identity key, each accepted once and in order.

The signature stands beside mutual TLS: it outlives the connection, so that what a
client sent can be shown later, and a stolen TLS key alone sends nothing. It is Ed25519
(RFC 8032) over length-prefixed fields below a domain of its own, so that no two
requests have the same signed bytes and nothing else the key signs can pass for one.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from fedtrain.core.errors import IdentityError
from fedtrain.wire.messages_pb2 import SignedRequest

NONCE_BYTES = 16
SIGNATURE_BYTES = 64
MOST_SEQUENCE = 2**64 - 1
_DOMAIN = b"fedtrain.wire.v1 signed request"


class RefusedRequestError(IdentityError):
    """A request is not signed as its sender, for this call and run: code REFUSED."""


class ReplayedRequestError(RefusedRequestError):
    """A request's sequence is not above that of an earlier one."""


def signed(
    request: SignedRequest, method: str, key: Ed25519PrivateKey
) -> SignedRequest:
    """A copy of ``request`` with a fresh nonce and its signature.

    Args:
      request: Client, run, round, sequence and body are set.
      method: The call it is for: "Hello", "Next", "Fetch", "Submit" or "Renew".
      key: The client's identity key.
    """
    result = SignedRequest()
    result.CopyFrom(request)
    result.nonce = secrets.token_bytes(NONCE_BYTES)
    result.signature = key.sign(signed_bytes(result, method))
    return result


def verified(
    request: SignedRequest,
    method: str,
    public_key: Ed25519PublicKey,
    *,
    client_id: str,
    run_id: str,
) -> bytes:
    """The body of ``request``, once it is known who signed it, and for what.

    Whether the sequence is fresh is the ``ReplayGuard``'s to say, afterwards; whether
    the round is open, that of whoever keeps the rounds.

    Args:
      request: As received.
      method: The call it came by.
      public_key: The identity key enrolled for ``client_id``.
      client_id: Who the client is by its certificate, not by the request.
      run_id: The run that is being served; "" for Hello and Renew.

    Raises:
      RefusedRequestError: With the reason, which holds no secret.
    """
    if request.client_id != client_id:
        raise RefusedRequestError(
            f"The request names client {request.client_id!r}, its certificate "
            f"{client_id!r}."
        )
    if request.run_id != run_id:
        raise RefusedRequestError(
            f"The request is for run {request.run_id!r}, not {run_id!r}."
        )
    if len(request.nonce) != NONCE_BYTES or len(request.signature) != SIGNATURE_BYTES:
        raise RefusedRequestError(
            "The request's nonce or signature has a wrong length."
        )
    try:
        public_key.verify(request.signature, signed_bytes(request, method))
    except InvalidSignature:
        raise RefusedRequestError(
            f"The signature is not {client_id!r}'s for this request of {method}."
        ) from None
    return request.body


def signed_bytes(request: SignedRequest, method: str) -> bytes:
    """What is signed: each field with its length before it, the body by its SHA-256."""
    fields = (
        _DOMAIN,
        method.encode(),
        request.client_id.encode(),
        request.run_id.encode(),
        request.round_number.to_bytes(4, "big"),
        request.sequence.to_bytes(8, "big"),
        request.nonce,
        hashlib.sha256(request.body).digest(),
    )
    return b"".join(len(field).to_bytes(8, "big") + field for field in fields)


class ReplayGuard:
    """Accepts from each client only growing sequences; safe to use from many threads.

    Ask it only about verified requests: others could use up a client's sequence.

    Args:
      remembered: The last sequences of an earlier process, by client.
      keep: Is told of each accepted sequence, one at a time, before it counts.
    """

    def __init__(
        self,
        remembered: Mapping[str, int] | None = None,
        *,
        keep: Callable[[str, int], None] | None = None,
    ) -> None:
        self._last = dict(remembered or {})
        self._keep = keep
        self._lock = threading.Lock()

    def accept(self, client_id: str, sequence: int) -> None:
        """Takes note of ``sequence``.

        Raises:
          ReplayedRequestError: If it is not above every earlier one of this client.
        """
        with self._lock:
            last = self._last.get(client_id, 0)
            if sequence > last:
                if self._keep is not None:
                    self._keep(client_id, sequence)
                self._last[client_id] = sequence
                return
        raise ReplayedRequestError(
            f"Sequence {sequence} of client {client_id!r} is not above {last}: the "
            "request was sent before, or a second process uses the same identity."
        )

    def remembered(self) -> dict[str, int]:
        """The last sequence of each client, to start the next process from."""
        with self._lock:
            return dict(self._last)


class Sequencer:
    """A client's growing sequence: the clock's nanoseconds, and never less than before.

    A restarted process goes on above its earlier numbers without having kept them,
    unless the clock was put back: then give it the last one, or ask ``skip_to``.
    """

    def __init__(
        self, last: int = 0, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._last = last
        self._clock = clock
        self._lock = threading.Lock()

    def next(self) -> int:
        """The sequence of the next request."""
        with self._lock:
            self._last = max(self._last + 1, self._clock())
            return self._last

    def skip_to(self, last: int) -> None:
        """Goes on above ``last``, the number that the other side has seen."""
        with self._lock:
            self._last = max(self._last, last)
