"""A client's secrets of one session, and their shares in sealed boxes.

Each box is for one holder: ChaCha20-Poly1305 under a key that HKDF-SHA256 makes of the
pair's X25519 secret, bound to session, dealer and holder. The dealer signs a commitment
to both secrets, to every share, and the hash of every box; so whoever opens a box knows
whether its shares are what all others were told, and can show it.

A commitment is a SHA-256 of what it binds to and 32 random bytes that nobody else
knows; the secrets are such bytes themselves.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedtrain.secagg import shamir
from fedtrain.secagg.envelopes import framed, sha256
from fedtrain.secagg.messages_pb2 import Deal, DealtTo
from fedtrain.secagg.roster import Roster

NONCE_BYTES = 32
BOX_BYTES = 2 * (shamir.SHARE_BYTES + NONCE_BYTES) + 16  # and the seal's tag
KEY_BYTES = 32
SEED = b"self-mask seed"
MASKING_KEY = b"masking key"
_COMMITMENT = b"fedtrain.secagg.v1 commitment"
_BOX = b"fedtrain.secagg.v1 sealed shares"
# A box's key is derived for it alone, so the cipher's nonce need not vary.
_ZERO_NONCE = bytes(12)


class PublicKeys(NamedTuple):
    """What one client advertises."""

    encryption: X25519PublicKey
    masking: X25519PublicKey


class PairSecrets(NamedTuple):
    """What two clients both know: the X25519 secrets of their two pairs of keys."""

    encryption: bytes
    masking: bytes

    def __repr__(self) -> str:
        return "PairSecrets(...)"


class Share(NamedTuple):
    """One holder's share of one secret, and what opens the commitment to it."""

    value: bytes
    nonce: bytes

    def __repr__(self) -> str:
        return "Share(...)"


class HeldShares(NamedTuple):
    """What one dealer gave one holder."""

    seed: Share
    key: Share


@dataclass(frozen=True)
class SessionSecrets:
    """Keys and seed of one client for one session, in memory only."""

    encryption: X25519PrivateKey = field(
        default_factory=X25519PrivateKey.generate, repr=False
    )
    masking_bytes: bytes = field(
        default_factory=lambda: secrets.token_bytes(KEY_BYTES), repr=False
    )
    seed: bytes = field(
        default_factory=lambda: secrets.token_bytes(KEY_BYTES), repr=False
    )

    @cached_property
    def masking(self) -> X25519PrivateKey:
        """The private key of the pair masks."""
        return X25519PrivateKey.from_private_bytes(self.masking_bytes)

    def shared_with(self, peer: PublicKeys) -> PairSecrets:
        """The secrets of the pair.

        Raises:
          ValueError: If a key is a point of small order: its secret would be known.
        """
        return PairSecrets(
            self.encryption.exchange(peer.encryption),
            self.masking.exchange(peer.masking),
        )

    @property
    def public(self) -> PublicKeys:
        """What is advertised."""
        return PublicKeys(self.encryption.public_key(), self.masking.public_key())


class BoxRoute(NamedTuple):
    """From whom to whom a box goes, in which session."""

    session: bytes
    dealer: str
    holder: str

    def key(self, pair_secret: bytes) -> bytes:
        """The key of this one box, from the pair's X25519 secret for encryption."""
        info = framed(_BOX, *self._named())
        derive = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive
        return derive(pair_secret)

    def sealed(self, key: bytes, shares: HeldShares) -> bytes:
        """Both shares, sealed."""
        content = b"".join(shares.seed + shares.key)
        return ChaCha20Poly1305(key).encrypt(
            _ZERO_NONCE, content, framed(*self._named())
        )

    def opened(self, key: bytes, box: bytes) -> HeldShares | None:
        """The shares in ``box``; None if the key does not open it."""
        try:
            content = ChaCha20Poly1305(key).decrypt(
                _ZERO_NONCE, box, framed(*self._named())
            )
        except (InvalidTag, ValueError):
            return None
        size = shamir.SHARE_BYTES + NONCE_BYTES
        if len(content) != 2 * size:
            return None
        seed, key_share = content[:size], content[size:]
        return HeldShares(_share_in(seed), _share_in(key_share))

    def _named(self) -> tuple[bytes, bytes, bytes]:
        return self.session, self.dealer.encode(), self.holder.encode()


def dealt(
    own: SessionSecrets,
    roster: Roster,
    *,
    dealer: str,
    pairs: Mapping[str, PairSecrets],
    keys_sha256: bytes,
) -> tuple[Deal, list[bytes]]:
    """The deal to sign, and the boxes in the order of their holders.

    Args:
      own: The dealer's secrets.
      roster: Gives points and threshold.
      dealer: The dealer's id.
      pairs: The secrets shared with each holder, the dealer among them, in order.
      keys_sha256: The hash of the message they came in.
    """
    deal = Deal(
        keys_sha256=keys_sha256,
        seed_commitment=secret_commitment(roster.session, dealer, SEED, own.seed),
        key_commitment=secret_commitment(
            roster.session, dealer, MASKING_KEY, own.masking_bytes
        ),
    )
    boxes = []
    for holder, shares in _shares(own, roster, list(pairs)).items():
        route = BoxRoute(roster.session, dealer, holder)
        box = route.sealed(route.key(pairs[holder].encryption), shares)
        boxes.append(box)
        deal.dealt.append(
            DealtTo(
                holder=holder,
                seed_commitment=share_commitment(route, SEED, shares.seed),
                key_commitment=share_commitment(route, MASKING_KEY, shares.key),
                box_sha256=sha256(box),
            )
        )
    return deal, boxes


def secret_commitment(session: bytes, dealer: str, what: bytes, secret: bytes) -> bytes:
    """Binds a dealer to a secret of 32 uniformly random bytes, which also hides it."""
    return sha256(framed(_COMMITMENT, session, dealer.encode(), what, secret))


def share_commitment(route: BoxRoute, what: bytes, share: Share) -> bytes:
    """Binds a dealer to one holder's share; the share's nonce hides it."""
    session, dealer, holder = route
    fields = (session, dealer.encode(), holder.encode(), what, *share)
    return sha256(framed(_COMMITMENT, *fields))


def are_as_dealt(shares: HeldShares, entry: DealtTo, route: BoxRoute) -> bool:
    """Whether both shares open the commitments that their dealer signed."""
    return entry.seed_commitment == share_commitment(
        route, SEED, shares.seed
    ) and entry.key_commitment == share_commitment(route, MASKING_KEY, shares.key)


def _shares(
    own: SessionSecrets, roster: Roster, holders: list[str]
) -> dict[str, HeldShares]:
    points = [roster.point(holder) for holder in holders]
    threshold = roster.parameters.threshold
    seeds = shamir.split(own.seed, points=points, threshold=threshold)
    keys = shamir.split(own.masking_bytes, points=points, threshold=threshold)
    return {
        holder: HeldShares(_with_nonce(seeds[point]), _with_nonce(keys[point]))
        for holder, point in zip(holders, points, strict=True)
    }


def _with_nonce(value: bytes) -> Share:
    return Share(value, secrets.token_bytes(NONCE_BYTES))


def _share_in(content: bytes) -> Share:
    return Share(content[: shamir.SHARE_BYTES], content[shamir.SHARE_BYTES :])
