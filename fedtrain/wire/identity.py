"""What a partner is: a TLS key and an identity key, which never leave its home folder.

The folder is for its owner alone (0700) and so is each file in it (0600).
``identity.pem`` holds the Ed25519 key that signs requests; ``tls.pem`` the P-256 key of
mutual TLS and, once admitted, its certificate: one file, so that both change at once.
"""

import base64
import datetime
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from fedtrain.core.errors import IdentityError
from fedtrain.core.files import write_atomically
from fedtrain.wire.certificates import (
    certificate_in,
    certificate_request,
    leaf_in,
)

IDENTITY_FILE = "identity.pem"
TLS_FILE = "tls.pem"
_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aiou"
_NUM_WORDS = 8


@dataclass(frozen=True)
class PartnerKeys:
    """A partner's two private keys; neither is shown by ``repr``."""

    identity: Ed25519PrivateKey = field(repr=False)
    tls: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def identity_text(self) -> str:
        """The public half of the identity key in base64."""
        return key_text(self.identity.public_key())


class TlsPair(NamedTuple):
    """Key and certificate of one side of mutual TLS, in PEM; the key is not shown."""

    key_pem: bytes
    certificate_pem: bytes

    def __repr__(self) -> str:
        return f"TlsPair({self.certificate_pem.decode()!r})"


def new_keys(home: Path) -> PartnerKeys:
    """Makes both keys in ``home``, or gives those that are there.

    Raises:
      IdentityError: If others may read what is there, or it is damaged.
    """
    private_folder(home)
    if not (home / IDENTITY_FILE).exists():
        write_private(home / IDENTITY_FILE, key_pem(Ed25519PrivateKey.generate()))
    if not (home / TLS_FILE).exists():
        write_private(home / TLS_FILE, key_pem(ec.generate_private_key(ec.SECP256R1())))
    return keys_in(home)


def keys_in(home: Path) -> PartnerKeys:
    """The keys in ``home``.

    Raises:
      IdentityError: If there are none, others may read them, or they are damaged.
    """
    return PartnerKeys(
        identity_key_in(home / IDENTITY_FILE), tls_key_in(home / TLS_FILE)
    )


def identity_key_in(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in the private file ``path``."""
    key = _private_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path} holds no Ed25519 key; restore it from a backup.")
    return key


def tls_key_in(path: Path) -> ec.EllipticCurvePrivateKey:
    """The ECDSA key in the private file ``path``."""
    key = _private_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path} holds no ECDSA key; restore it from a backup.")
    return key


def tls_pair_in(path: Path) -> TlsPair:
    """Key and certificate in the private file ``path``.

    Raises:
      IdentityError: If there is no certificate yet, or it is of another key.
    """
    key = tls_key_in(path)
    _, found, rest = read_private(path).partition(b"-----BEGIN CERTIFICATE-----")
    if not found:
        raise IdentityError(
            f"{path} holds no certificate yet: hand the request to the operator, and "
            "give the invitation that comes back to `fedtrain-client review`."
        )
    certificate = found + rest
    _check_same_key(leaf_in(certificate), key)
    return TlsPair(key_pem(key), certificate)


def store_tls_pair(
    path: Path,
    key: ec.EllipticCurvePrivateKey,
    certificate_pem: bytes | str,
    *,
    bridge_pem: bytes = b"",
) -> None:
    """Puts a key and its certificate into one private file, both at once.

    Args:
      path: Of the file.
      key: Private.
      certificate_pem: Of this key.
      bridge_pem: A certificate that vouches for the one that signed it.
    """
    certificate = certificate_in(certificate_pem)
    _check_same_key(certificate, key)
    text = certificate.public_bytes(serialization.Encoding.PEM)
    write_private(path, key_pem(key) + text + bridge_pem)


@dataclass(frozen=True)
class Renewal:
    """A new TLS key on its way to a certificate; the old pair serves until ``accept``.

    Attributes:
      request_pem: The certificate request, for the body of Renew.
    """

    request_pem: str
    _home: Path
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def accept(self, certificate_pem: bytes | str) -> None:
        """Replaces key and certificate in the home by the new ones."""
        store_tls_pair(self._home / TLS_FILE, self._key, certificate_pem)


def renewal(home: Path, client_id: str) -> Renewal:
    """Starts the renewal of the certificate in ``home``, with a new key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Renewal(certificate_request(client_id, key), home, key)


def needs_renewal(certificate_pem: bytes | str, *, now: datetime.datetime) -> bool:
    """Whether less than a third of the certificate's life is left."""
    certificate = certificate_in(certificate_pem)
    end = certificate.not_valid_after_utc
    return (end - now) * 3 < end - certificate.not_valid_before_utc


def key_text(key: Ed25519PublicKey) -> str:
    """A public identity key in base64."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def public_key_from(text: str) -> Ed25519PublicKey:
    """The identity key that ``key_text`` wrote.

    Raises:
      IdentityError: If ``text`` is not 32 bytes in base64.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise IdentityError(f"This is no identity key: {text[:60]!r}.") from None
    if key_text(key) != text:
        raise IdentityError(f"This identity key is written in two ways: {text!r}.")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """Eight words to read aloud over the phone: 128 bits of the key's SHA-256.

    The words are proquints (Wilkerson, 2009, arXiv:0901.4016): five letters, 16 bits.
    """
    digest = hashlib.sha256(b"fedtrain identity" + key.public_bytes_raw()).digest()
    pairs = (digest[2 * i] << 8 | digest[2 * i + 1] for i in range(_NUM_WORDS))
    return "-".join(_proquint(pair) for pair in pairs)


def private_folder(path: Path) -> None:
    """Makes a folder for its owner alone, or checks that it is one."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        raise IdentityError(
            f"Others may look into {path}, which holds private keys: chmod 700 {path}."
        )


def write_private(path: Path, content: bytes | str) -> None:
    """Writes a file that only its owner may read, all of it or nothing."""
    write_atomically(path, content, mode=0o600)


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner may read.

    Raises:
      IdentityError: If it is not there, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}.") from None
    if mode & 0o077:
        raise IdentityError(
            f"Others may read {path}: take that away with chmod 600 {path}, and make "
            "new keys if they may have read it."
        )
    return content


def key_pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM (PKCS #8), for a private file."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _private_key(path: Path) -> object:
    content = read_private(path)
    try:
        return serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        # The parser's words could quote the key.
        raise IdentityError(
            f"{path} holds no private key in PEM; restore it from a backup."
        ) from None


def _check_same_key(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    if certificate.public_key() != key.public_key():
        raise IdentityError(
            "The certificate is for another key than the one in the home folder: it "
            "answers another request. Ask for one with `fedtrain-client request`."
        )


def _proquint(pair: int) -> str:
    return (
        _CONSONANTS[pair >> 12]
        + _VOWELS[pair >> 10 & 3]
        + _CONSONANTS[pair >> 6 & 15]
        + _VOWELS[pair >> 4 & 3]
        + _CONSONANTS[pair & 15]
    )
