"""Who takes part in one session, on what terms: one document with one hash.

The hash is the session's name. It is in every signature and every derived key, so that
whatever was sent under one roster means nothing under another.
"""

import dataclasses
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError, IdentityError
from fedtrain.secagg.blame import OPERATOR, relay_breach
from fedtrain.secagg.envelopes import (
    body_of,
    check_signed,
    encoded,
    enveloped,
    parsed,
    sha256,
)
from fedtrain.secagg.messages_pb2 import ROSTER, RosterBody
from fedtrain.secagg.messages_pb2 import Member as MemberMessage
from fedtrain.secagg.parameters import Parameters, parameters_for
from fedtrain.wire.certificates import check_client_id

PROTOCOL_VERSION = 1
NONCE_BYTES = 16
_HASH_BYTES = 32


class Member(NamedTuple):
    """One client: its id and its Ed25519 identity key, 32 raw bytes."""

    client_id: str
    identity_key: bytes


@dataclass(frozen=True, kw_only=True)
class Roster:
    """The terms of one session.

    Attributes:
      plan_sha256: Of the plan that every client approved, 32 bytes.
      round_number: From 0.
      attempt: From 0; a further attempt at the round has fresh keys and masks.
      parameters: Threshold, colluders, honest survivors.
      vector_length: How many words modulo 2^32 each client sends.
      members: All clients, in the order of their ids.
      nonce: 16 bytes that no other roster has.
    """

    plan_sha256: bytes
    round_number: int
    attempt: int = 0
    parameters: Parameters
    vector_length: int
    members: tuple[Member, ...]
    nonce: bytes = dataclasses.field(
        default_factory=lambda: secrets.token_bytes(NONCE_BYTES)
    )

    def __post_init__(self) -> None:
        validate.positive_integer(vector_length=self.vector_length)
        validate.non_negative(round_number=self.round_number, attempt=self.attempt)
        if (len(self.plan_sha256), len(self.nonce)) != (_HASH_BYTES, NONCE_BYTES):
            raise ConfigError(
                f"plan_sha256 and nonce must have {_HASH_BYTES} and {NONCE_BYTES} "
                f"bytes, got {len(self.plan_sha256)} and {len(self.nonce)}."
            )
        _check_members(self.members, self.parameters.num_clients)

    @cached_property
    def client_ids(self) -> tuple[str, ...]:
        """All clients, in order."""
        return tuple(member.client_id for member in self.members)

    @cached_property
    def session(self) -> bytes:
        """The session's name: SHA-256 of the roster."""
        return sha256(encoded(self._body()))

    def point(self, client_id: str) -> int:
        """Where on the polynomials the client's shares lie, from 1."""
        return self.client_ids.index(client_id) + 1

    def identity_key(self, client_id: str) -> Ed25519PublicKey:
        """The key that the client signs with."""
        raw = self.members[self.point(client_id) - 1].identity_key
        return Ed25519PublicKey.from_public_bytes(raw)

    def signed(self, operator_key: Ed25519PrivateKey) -> bytes:
        """The message that opens the session."""
        envelope = enveloped(
            ROSTER,
            self._body(),
            session=self.session,
            sender=OPERATOR,
            key=operator_key,
        )
        return encoded(envelope)

    def retried(self, *, without: Collection[str]) -> "Roster":
        """The next attempt at the round without some clients, same colluders.

        Raises:
          ConfigError: If too few clients are left.
        """
        members = tuple(m for m in self.members if m.client_id not in without)
        return dataclasses.replace(
            self,
            attempt=self.attempt + 1,
            members=members,
            parameters=parameters_for(
                len(members), num_colluding=self.parameters.num_colluding
            ),
            nonce=secrets.token_bytes(NONCE_BYTES),
        )

    def _body(self) -> RosterBody:
        return RosterBody(
            version=PROTOCOL_VERSION,
            plan_sha256=self.plan_sha256,
            round_number=self.round_number,
            attempt=self.attempt,
            nonce=self.nonce,
            threshold=self.parameters.threshold,
            num_colluding=self.parameters.num_colluding,
            num_honest_survivors=self.parameters.num_honest_survivors,
            vector_length=self.vector_length,
            members=[MemberMessage(**member._asdict()) for member in self.members],
        )


def roster_in(message: bytes, operator_key: Ed25519PublicKey) -> Roster:
    """The roster that the operator signed.

    Raises:
      UnauthenticError: If the operator did not.
      BreachError: If it is none that keeps the protocol's promises.
    """
    envelope = parsed(message)
    session = sha256(envelope.body)
    check_signed(envelope, ROSTER, session=session, key=operator_key)
    body = body_of(envelope, RosterBody)
    if body.version != PROTOCOL_VERSION:
        raise relay_breach(f"the roster is of protocol version {body.version}")
    try:
        return _roster(body)
    except (ConfigError, IdentityError) as error:
        raise relay_breach(f"the roster is refused: {error}") from None


def _roster(body: RosterBody) -> Roster:
    return Roster(
        plan_sha256=body.plan_sha256,
        round_number=body.round_number,
        attempt=body.attempt,
        parameters=Parameters(
            num_clients=len(body.members),
            threshold=body.threshold,
            num_colluding=body.num_colluding,
            num_honest_survivors=body.num_honest_survivors,
        ),
        vector_length=body.vector_length,
        members=tuple(Member(m.client_id, m.identity_key) for m in body.members),
        nonce=body.nonce,
    )


def _check_members(members: tuple[Member, ...], num_clients: int) -> None:
    client_ids = [member.client_id for member in members]
    keys = {member.identity_key for member in members}
    if len(members) != num_clients:
        raise ConfigError(f"{len(members)} members are not the {num_clients} declared.")
    if client_ids != sorted(set(client_ids)):
        raise ConfigError(f"members must be distinct and in order, got {client_ids}.")
    if len(keys) < len(members) or any(len(key) != _HASH_BYTES for key in keys):
        raise ConfigError("Each member needs an identity key of its own, of 32 bytes.")
    for client_id in client_ids:
        check_client_id(client_id)
