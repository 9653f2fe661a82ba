"""What both sides check of a session's signed messages, each on its own."""

from collections.abc import Collection, Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from fedtrain.secagg.blame import OPERATOR, Blame, BreachError, UnauthenticError
from fedtrain.secagg.dealing import PublicKeys
from fedtrain.secagg.envelopes import body_of, check_signed, framed, sha256
from fedtrain.secagg.messages_pb2 import (
    ADVERTISEMENT,
    CONSISTENCY,
    DEAL,
    Advertisement,
    Deal,
    Envelope,
    Survivors,
)
from fedtrain.secagg.roster import Roster

_TRANSCRIPT = b"fedtrain.secagg.v1 transcript"


def check_member(envelope: Envelope, kind: int, roster: Roster) -> None:
    """Checks that a client of the roster signed ``envelope`` for this step.

    Raises:
      UnauthenticError: If not.
    """
    if envelope.sender not in roster.client_ids:
        raise UnauthenticError(f"{envelope.sender[:80]!r} is not in the roster.")
    check_signed(
        envelope,
        kind,
        session=roster.session,
        key=roster.identity_key(envelope.sender),
    )


def public_keys(envelope: Envelope, roster: Roster) -> PublicKeys:
    """The keys that a client of the roster advertises.

    Raises:
      UnauthenticError: If it did not sign them.
      BreachError: If they are no keys.
    """
    check_member(envelope, ADVERTISEMENT, roster)
    body = body_of(envelope, Advertisement)
    try:
        return PublicKeys(
            X25519PublicKey.from_public_bytes(body.encryption_key),
            X25519PublicKey.from_public_bytes(body.masking_key),
        )
    except ValueError:
        raise unusable(envelope.sender) from None


def are_distinct(keys: Iterable[PublicKeys]) -> bool:
    """Whether no key is used twice, by whomever and for whatever."""
    raw = [key.public_bytes_raw() for pair in keys for key in pair]
    return len(set(raw)) == len(raw)


def deal_in(
    envelope: Envelope, roster: Roster, *, holders: Sequence[str], keys_sha256: bytes
) -> Deal:
    """The deal that a client of the roster signed.

    Args:
      envelope: As received.
      roster: Of the session.
      holders: Who advertised keys, in order: a deal has one entry for each.
      keys_sha256: The hash of the message that listed their keys.

    Raises:
      UnauthenticError: If it did not sign it.
      BreachError: If it is not a deal to exactly these holders under these keys.
    """
    check_member(envelope, DEAL, roster)
    deal = body_of(envelope, Deal)
    if deal.keys_sha256 != keys_sha256:
        reason = "shares were dealt for other keys than came here"
        raise BreachError(Blame((OPERATOR, envelope.sender), reason, proven=False))
    if [entry.holder for entry in deal.dealt] != list(holders):
        raise proven(envelope.sender, "its deal is not to those who advertised keys")
    return deal


def transcript_sha256(deals: Iterable[Envelope]) -> bytes:
    """One hash of all deals, in the order of their dealers."""
    fields = (field for deal in deals for field in (deal.sender.encode(), deal.body))
    return sha256(framed(_TRANSCRIPT, *fields))


def is_ordered(names: Sequence[str], *, among: Collection[str]) -> bool:
    """Whether ``names`` are distinct, in order, and all ``among`` others."""
    return list(names) == sorted(set(names)) and set(names) <= set(among)


def check_consistency(envelope: Envelope, roster: Roster, expected: Survivors) -> None:
    """Checks that a survivor signed the same survivors as everybody.

    Raises:
      UnauthenticError: If no survivor signed it.
      BreachError: If it signed others: it was told others, or lies.
    """
    check_member(envelope, CONSISTENCY, roster)
    if envelope.sender not in expected.survivors:
        raise UnauthenticError(f"{envelope.sender} is not among the survivors.")
    if body_of(envelope, Survivors) != expected:
        reason = "it signed other survivors than were announced to all"
        raise BreachError(Blame((OPERATOR, envelope.sender), reason, proven=False))


def unusable(client_id: str) -> BreachError:
    """A client signed keys that are none, or whose secrets everybody knows."""
    return proven(client_id, "its keys are no X25519 keys")


def proven(client_id: str, reason: str) -> BreachError:
    """A client's own signature proves it."""
    return BreachError(Blame((client_id,), reason, proven=True))
