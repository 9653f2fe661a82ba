"""Certificates that both sides check: X.509 with a role and a name in the SAN.

A leaf names itself by a URI, ``fedtrain://client/bank-a`` or ``fedtrain://server/NAME``,
and its extended key usage says the same: neither side can play the other's role. Keys
are ECDSA P-256 (TLS); identities that sign requests are Ed25519 keys beside them.
"""

import datetime
import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtrain.core.errors import IdentityError

MOST_PEM_BYTES = 16 * 1024
_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def client_uri(client_id: str) -> str:
    """The name in the SAN of a client's certificate."""
    return f"fedtrain://client/{client_id}"


def server_uri(name: str) -> str:
    """The name in the SAN of the aggregator's certificate, beside its hosts."""
    return f"fedtrain://server/{name}"


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
    data = pem.encode() if isinstance(pem, str) else pem
    if len(data) > MOST_PEM_BYTES:
        raise IdentityError(f"A certificate of {len(data)} bytes is refused unread.")
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise IdentityError(f"This is no PEM certificate: {error}.") from None
    if len(found) != 1:
        raise IdentityError(f"One certificate was expected, {len(found)} were given.")
    return found[0]


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
    except (InvalidSignature, ValueError, TypeError):
        raise IdentityError(
            "The certificate was not signed by this federation's authority."
        ) from None


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
    try:
        request = x509.load_pem_x509_csr(data)
        names = _uris(request)
        is_own = request.is_signature_valid
        key = request.public_key()
    except Exception as error:  # noqa: BLE001 - whatever a parser of strangers' bytes raises
        raise IdentityError(f"This is no certificate request: {error}.") from None
    if not is_own or not isinstance(key, ec.EllipticCurvePublicKey):
        raise IdentityError("The certificate request is not signed by a key on P-256.")
    if not isinstance(key.curve, ec.SECP256R1) or names != [client_uri(client_id)]:
        raise IdentityError(
            f"The certificate request is for {names} with a key on {key.curve.name}; "
            f"{client_uri(client_id)!r} on P-256 is needed."
        )
    return key


def _check_role(leaf: x509.Certificate, uri: str) -> None:
    is_client = uri.startswith(client_uri(""))
    usage = (
        ExtendedKeyUsageOID.CLIENT_AUTH
        if is_client
        else ExtendedKeyUsageOID.SERVER_AUTH
    )
    try:
        found = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        raise IdentityError("The certificate does not say what it is for.") from None
    if list(found) != [usage] or constraints.value.ca:
        role = "client" if is_client else "server"
        raise IdentityError(f"The certificate has a wrong role: it is no {role}'s.")


def _uris(holder: x509.Certificate | x509.CertificateSigningRequest) -> list[str]:
    try:
        names = holder.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(names.value.get_values_for_type(x509.UniformResourceIdentifier))
