"""Heads of partners' audit logs in the journal, each with the request that proves it.

A partner signs, with every contribution, how long its own log was and the last hash.
The journal keeps the signed request as it came, without the contribution: whoever has
the partner's public key can check that the head is the partner's and not the
operator's word.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Any

from aggregator.events import Event
from aggregator.partners import Partner
from aggregator.uploads import RefusedError
from fedtrain.core.errors import IdentityError, WireError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import decoded
from fedtrain.wire.identity import public_key_from
from fedtrain.wire.signing import RefusedRequestError, verified

_MOST_BYTES = 16 * 1024


def signed_head(request: pb.SignedRequest, header: pb.SubmitHeader) -> dict[str, Any]:
    """The head of the client's audit log, for the journal; empty if it keeps none.

    Args:
      request: Verified; its body is ``header``.
      header: Of a contribution.

    Raises:
      RefusedError: If the head is none, or the request too long to be kept.
    """
    if not header.audit_sha256:
        return {}
    content = request.SerializeToString()
    if len(header.audit_sha256) != 32 or len(content) > _MOST_BYTES:
        raise RefusedError(
            pb.MALFORMED,
            "The audit log's hash must have 32 bytes, and the header of a contribution "
            f"at most {_MOST_BYTES}.",
        )
    head = {"length": header.audit_length, "hash": header.audit_sha256.hex()}
    return {"audit": {**head, "signed": base64.b64encode(content).decode()}}


def check_heads(events: Iterable[Event], partners: Sequence[Partner]) -> str:
    """Whether every head in the journal is one that its partner has signed.

    Returns:
      How many there are, in a sentence.

    Raises:
      IdentityError: Naming the first that its partner did not sign so.
    """
    keys = {one.client_id: (one.identity_key, *one.revoked_keys) for one in partners}
    num_signed = 0
    for event in events:
        body = event.draft.body
        if event.draft.kind != "accepted" or "signed" not in body.get("audit", {}):
            continue
        if not any(_is_of(event, key) for key in keys.get(body["client"], ())):
            raise IdentityError(
                f"Event {event.sequence} of the journal notes a head of the audit log "
                f"of {body['client']!r} that this partner did not sign."
            )
        num_signed += 1
    return f"{num_signed} heads of partners' audit logs, each signed by its partner"


def _is_of(event: Event, key: str) -> bool:
    draft = event.draft
    noted = draft.body["audit"]
    try:
        content = base64.b64decode(noted["signed"], validate=True)
        request = decoded(pb.SignedRequest, content, most_bytes=_MOST_BYTES)
        body = verified(
            request,
            "Submit",
            public_key_from(key),
            client_id=draft.body["client"],
            run_id=draft.run_id,
        )
        header = decoded(pb.SubmitHeader, body, most_bytes=_MOST_BYTES)
    except (binascii.Error, WireError, RefusedRequestError):
        return False
    head = header.audit_length, header.audit_sha256.hex()
    signed = request.round_number, request.sequence, *head
    said = draft.round_number, draft.body["sequence"], noted["length"], noted["hash"]
    return signed == said
