"""The authority that signs, and for a while the one before it, which is trusted still.

A new authority has a new key and the same name. Until the change is finished, leaves of
both are good, and a bridge (the new key, signed by the old one) lets those who know the
old one alone trust the server. Partners learn of the new one by an invitation.
"""

import datetime
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from aggregator.leaves import Issuer, new_key, next_authority
from fedtrain.core.errors import IdentityError
from fedtrain.core.files import sync_folder
from fedtrain.wire.certificates import certificate_in, check_issued
from fedtrain.wire.identity import (
    read_private,
    store_tls_pair,
    tls_key_in,
    tls_pair_in,
    write_private,
)

AUTHORITY_FILE = "authority.pem"
_BEFORE_FILE = "authority.before.pem"
_BRIDGE_FILE = "authority.bridge.pem"


class Authorities:
    """The present authority of a folder and, while it is being replaced, the last one.

    Args:
      home: The authority's folder.

    Attributes:
      present: The certificate of the one that signs.
      before: That of the one which is being replaced; None at other times.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.present = _certificate(home / AUTHORITY_FILE)
        path = home / _BEFORE_FILE
        before = _certificate(path) if path.exists() else self.present
        # Equal only if a replacement was interrupted before it began to hold.
        self.before = None if before == self.present else before

    def __iter__(self) -> Iterator[x509.Certificate]:
        yield self.present
        if self.before is not None:
            yield self.before

    @property
    def pem(self) -> bytes:
        """The certificates of all that are trusted."""
        return b"".join(map(pem_of, self))

    @property
    def bridge_pem(self) -> bytes:
        """From the one before to the present one; empty unless it is being replaced."""
        return b"" if self.before is None else read_private(self._home / _BRIDGE_FILE)

    def signer_of(self, leaf: x509.Certificate) -> x509.Certificate:
        """Which authority signed ``leaf``.

        Raises:
          IdentityError: If it was none of them.
        """
        for authority in self:
            if is_signed_by(authority, leaf):
                return authority
        raise IdentityError(
            "The certificate was not signed by this federation's authority."
        )

    def issuer(self) -> Issuer:
        """The key and certificate of the present authority."""
        return Issuer(tls_key_in(self._home / AUTHORITY_FILE), self.present)

    def issuer_of(self, leaf_pem: bytes | str | None) -> Issuer:
        """Those of the authority that signed ``leaf_pem``; of the present, for None."""
        if leaf_pem is None or self.signer_of(certificate_in(leaf_pem)) == self.present:
            return self.issuer()
        before = tls_pair_in(self._home / _BEFORE_FILE).certificate_pem
        key = tls_key_in(self._home / _BEFORE_FILE)
        return Issuer(key, certificate_in(before))

    def replace(self) -> "Authorities":
        """Makes a new authority, and keeps the present one beside it.

        Raises:
          IdentityError: If it is being replaced already.
        """
        if self.before is not None:
            raise IdentityError(
                "The authority is being replaced already: finish that first, with "
                "`fedtrain-aggregator authority finish`."
            )
        key, old = new_key(), self.issuer()
        made = next_authority(key, old, datetime.datetime.now(datetime.UTC))
        write_private(self._home / _BRIDGE_FILE, pem_of(made.bridge))
        old_key = tls_key_in(self._home / AUTHORITY_FILE)
        store_tls_pair(self._home / _BEFORE_FILE, old_key, pem_of(self.present))
        # Last: what was written before means nothing without it.
        store_tls_pair(self._home / AUTHORITY_FILE, key, pem_of(made.own))
        return Authorities(self._home)

    def finish(self) -> "Authorities":
        """Forgets the one before, with its key: its leaves are refused from now on."""
        for name in (_BEFORE_FILE, _BRIDGE_FILE):
            (self._home / name).unlink(missing_ok=True)
        sync_folder(self._home)
        return Authorities(self._home)


def is_signed_by(authority: x509.Certificate, leaf: x509.Certificate) -> bool:
    """Whether ``authority`` signed ``leaf``."""
    try:
        check_issued(leaf, authority=authority)
    except IdentityError:
        return False
    return True


def pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(path: Path) -> x509.Certificate:
    return certificate_in(tls_pair_in(path).certificate_pem)
