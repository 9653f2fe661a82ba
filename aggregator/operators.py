"""Certificates with which the operator's own people see the page, without its token.

They are the authority's, with a role of their own: no partner's call is accepted with
one, and no partner's certificate opens the page. A copy of each lies in a folder; one
that is taken away there is refused from the next request on.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from aggregator.authorities import Authorities
from aggregator.leaves import new_key, operator_leaf
from fedtrain.core.errors import IdentityError
from fedtrain.wire.certificates import (
    certificate_in,
    check_client_id,
    check_leaf,
    operator_uri,
)
from fedtrain.wire.identity import TlsPair, key_pem, private_folder, write_private


class Operators:
    """The certificates that open the page.

    Args:
      folder: With a copy of each; made when the first is.
      authorities: That sign them.
    """

    def __init__(self, folder: Path, authorities: Authorities) -> None:
        self._folder = folder
        self._authorities = authorities

    def admit(self, name: str) -> TlsPair:
        """A new key and certificate for ``name``; one it had before is refused then."""
        check_client_id(name)
        key = new_key()
        now = datetime.datetime.now(datetime.UTC)
        leaf = operator_leaf(
            key.public_key(), name, issuer=self._authorities.issuer(), now=now
        )
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        private_folder(self._folder)
        write_private(self._path(name), pem)
        return TlsPair(key_pem(key), pem)

    def revoke(self, name: str) -> None:
        """Refuses the certificate of ``name`` from the next request on.

        Raises:
          IdentityError: If it has none.
        """
        check_client_id(name)
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise IdentityError(f"{name!r} has no certificate for the page.") from None

    def checked(self, certificate_pem: bytes | str) -> str:
        """The name in a certificate that opens the page.

        Raises:
          IdentityError: With the reason.
        """
        leaf = certificate_in(certificate_pem)
        for path in self._folder.glob("*.pem"):
            if _read(path) == leaf:
                now = datetime.datetime.now(datetime.UTC)
                uri = operator_uri(path.stem)
                signer = self._authorities.signer_of(leaf)
                check_leaf(leaf, authority=signer, uri=uri, now=now)
                return path.stem
        raise IdentityError("This certificate is no operator's, or was revoked.")

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pem"


def _read(path: Path) -> x509.Certificate | None:
    try:
        return certificate_in(path.read_bytes())
    except (OSError, IdentityError):
        return None
