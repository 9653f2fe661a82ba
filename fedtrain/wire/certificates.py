"""Certificates that both sides check: X.509 with a role and a name in the SAN.

A leaf names itself by a URI, ``fedtrain://client/bank-a`` or ``fedtrain://server/NAME``,
and its extended key usage says the same: neither side can play the other's role. Keys
are ECDSA P-256 (TLS); identities that sign requests are Ed25519 keys beside them.
"""

import datetime
import re
from collections.abc import Callable
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtrain.core.errors import IdentityError

MOST_PEM_BYTES = 16 * 1024
_Holder = x509.Certificate | x509.CertificateSigningRequest
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_In = TypeVar("_In")
_Out = TypeVar("_Out")
_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def client_uri(client_id: str) -> str:
    """The name in the SAN of a client's certificate."""
    return f"fedtrain://client/{client_id}"


def server_uri(name: str) -> str:
    """The name in the SAN of the aggregator's certificate, beside its hosts."""
    return f"fedtrain://server/{name}"


def operator_uri(name: str) -> str:
    """The name in the SAN of a certificate that opens the operator's page."""
    return f"fedtrain://operator/{name}"


def check_client_id(client_id: str) -> None:
    """Refuses what is no client id.

    Raises:
      IdentityError: Unless it is 1 to 63 lower-case letters, digits and hyphens.
    """
    if not _CLIENT_ID.fullmatch(client_id):
        raise IdentityError(
            f"client_id must be 1 to 63 lower-case letters, digits and hyphens, not "
            f"starting with a hyphen; got {client_id[:80]!r}."
        )


def certificate_in(pem: bytes | str) -> x509.Certificate:
    """The one certificate in ``pem``.

    Raises:
      IdentityError: If it is too long, none, or more than one.
    """
    found = _certificates(pem)
    if len(found) != 1:
        raise IdentityError(f"One certificate was expected, {len(found)} were given.")
    return found[0]


def leaf_in(pem: bytes | str) -> x509.Certificate:
    """The first certificate in ``pem``: a leaf, before those that vouch for it.

    Raises:
      IdentityError: If it is too long, or holds none.
    """
    return _certificates(pem)[0]


def check_leaf(
    leaf: x509.Certificate,
    *,
    authority: x509.Certificate,
    uri: str,
    now: datetime.datetime,
) -> None:
    """Refuses a leaf that is not the authority's, for ``uri``, and of today.

    Args:
      leaf: The certificate.
      authority: That of the certificate authority.
      uri: From ``client_uri`` or ``server_uri``: the name, and with it the role.
      now: With a time zone.

    Raises:
      IdentityError: With the reason.
    """
    check_issued(leaf, authority=authority)
    check_dates(leaf, now=now)
    _check_role(leaf, uri)
    found = _uris(leaf)
    if found != [uri]:
        raise IdentityError(f"The certificate names {found}, where {uri!r} is needed.")


def check_issued(leaf: x509.Certificate, *, authority: x509.Certificate) -> None:
    """Refuses a leaf that ``authority`` did not sign."""
    try:
        leaf.verify_directly_issued_by(authority)
        is_signed = _ends_plainly(leaf)
    except (InvalidSignature, ValueError, TypeError):
        is_signed = False
    if not is_signed:
        raise IdentityError(
            "The certificate was not signed by this federation's authority."
        )


def check_dates(certificate: x509.Certificate, *, now: datetime.datetime) -> None:
    """Refuses a certificate that is not valid at ``now``."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        raise IdentityError(
            f"The certificate is not valid before {start:%Y-%m-%d %H:%M} UTC."
        )
    if now > end:
        raise IdentityError(f"The certificate has expired at {end:%Y-%m-%d %H:%M} UTC.")


def certificate_request(client_id: str, key: ec.EllipticCurvePrivateKey) -> str:
    """A PKCS #10 request in PEM, signed with ``key``, which stays where it is."""
    check_client_id(client_id)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, client_id)])
    san = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(client_uri(client_id))]
    )
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = builder.add_extension(san, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def requested_key(pem: bytes | str, *, client_id: str) -> ec.EllipticCurvePublicKey:
    """The key in a certificate request of ``client_id``; nothing else is taken from it.

    Raises:
      IdentityError: If it is no request, not signed by its own key, for another client,
        or its key is not on P-256.
    """
    data = pem.encode() if isinstance(pem, str) else pem
    if len(data) > MOST_PEM_BYTES:
        raise IdentityError(f"A certificate request of {len(data)} bytes is refused.")
    request = _parsed(x509.load_pem_x509_csr, data, "certificate request")
    key = _on_p256(
        _parsed(x509.CertificateSigningRequest.public_key, request, "request's key")
    )
    if not request.is_signature_valid or not _ends_plainly(request):
        raise IdentityError("The certificate request is not signed by its own key.")
    if _uris(request) != [client_uri(client_id)]:
        raise IdentityError(
            f"The certificate request is for {_uris(request)}; "
            f"{client_uri(client_id)!r} is needed."
        )
    return key


def _check_role(leaf: x509.Certificate, uri: str) -> None:
    is_server = uri.startswith(server_uri(""))
    usage = (
        ExtendedKeyUsageOID.SERVER_AUTH
        if is_server
        else ExtendedKeyUsageOID.CLIENT_AUTH
    )
    found = _extension(leaf, x509.ExtendedKeyUsage)
    constraints = _extension(leaf, x509.BasicConstraints)
    if found is None or constraints is None:
        raise IdentityError("The certificate does not say what it is for.")
    if list(found) != [usage] or constraints.ca:
        role = "server" if is_server else "client"
        raise IdentityError(f"The certificate has a wrong role: it is no {role}'s.")


def _uris(holder: _Holder) -> list[str]:
    names = _extension(holder, x509.SubjectAlternativeName)
    if names is None:
        return []
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))


def _ends_plainly(holder: _Holder) -> bool:
    """Whether all bits of the signature are used: it does not cover their number."""
    der = holder.public_bytes(serialization.Encoding.DER)
    return der.endswith(b"\0" + holder.signature)


def _extension(holder: _Holder, kind: type[_Extension]) -> _Extension | None:
    """The extension of this kind; None without it, or where it cannot be read."""
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except Exception:  # noqa: BLE001 - a parser of strangers' bytes; none is refused
        return None


def _certificates(pem: bytes | str) -> list[x509.Certificate]:
    data = pem.encode() if isinstance(pem, str) else pem
    if len(data) > MOST_PEM_BYTES:
        raise IdentityError(f"A certificate of {len(data)} bytes is refused unread.")
    found = _parsed(x509.load_pem_x509_certificates, data, "PEM certificate")
    for one in found:
        _on_p256(_parsed(x509.Certificate.public_key, one, "certificate"))
    return found


def _parsed(parser: Callable[[_In], _Out], data: _In, what: str) -> _Out:
    try:
        return parser(data)
    except Exception as error:  # noqa: BLE001 - a parser of strangers' bytes
        raise IdentityError(f"This is no {what}: {error}.") from None


def _on_p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise IdentityError("The key to certify must be an ECDSA key on P-256.")
    return key
