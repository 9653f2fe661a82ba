"""Who makes a call: certificate, signature and sequence, checked on every one."""

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from aggregator.authority import Authority
from aggregator.uploads import RefusedError
from fedtrain.core.errors import IdentityError, WireError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import decoded
from fedtrain.wire.signing import ReplayGuard, verified

_Message = TypeVar("_Message", bound=Message)
_WITHOUT_RUN = frozenset({"Hello", "Renew"})


@dataclass(frozen=True)
class CallerCheck:
    """Turns a call's bytes into a request that its sender has signed.

    Attributes:
      authority: Knows the partners, and who was revoked.
      run_id: The run that is served.
      guard: Remembers the sequence of each partner.
    """

    authority: Authority
    run_id: str
    guard: ReplayGuard

    def request(self, method: str, raw: bytes, pem: bytes) -> pb.SignedRequest:
        """The request in ``raw``.

        Args:
          method: The call.
          raw: The serialised SignedRequest.
          pem: The certificate of the call's connection.

        Raises:
          RefusedError: MALFORMED, REFUSED with the reason, or WRONG_PLAN where another
            run is meant.
        """
        return self.checked(method, parsed(pb.SignedRequest, raw), pem)

    def checked(
        self, method: str, request: pb.SignedRequest, pem: bytes
    ) -> pb.SignedRequest:
        """``request``, once it is known to be its sender's, for this call, and new."""
        run_id = "" if method in _WITHOUT_RUN else request.run_id
        client_id = request.client_id
        try:
            key = self.authority.checked(client_id, pem).public_key
            verified(request, method, key, client_id=client_id, run_id=run_id)
            self.guard.accept(client_id, request.sequence)
        except IdentityError as error:
            raise RefusedError(pb.REFUSED, str(error)) from error
        if run_id and run_id != self.run_id:
            raise RefusedError(pb.WRONG_PLAN, f"Run {run_id!r} is not served here now.")
        return request


def parsed(kind: type[_Message], raw: bytes) -> _Message:
    """The message in ``raw``.

    Raises:
      RefusedError: MALFORMED, if it is none.
    """
    try:
        return decoded(kind, raw)
    except WireError as error:
        raise RefusedError(pb.MALFORMED, str(error)) from error
