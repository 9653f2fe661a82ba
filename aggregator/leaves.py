"""The certificates that the operator's authority makes: its own, and its leaves."""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtrain.core.errors import IdentityError
from fedtrain.wire.certificates import client_uri, operator_uri, server_uri

LEAF_DAYS = 90
_AUTHORITY_DAYS = 3650
# Clocks of institutions differ by minutes; a leaf of today is valid on all of them.
_SKEW = datetime.timedelta(minutes=10)
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


class Succession(NamedTuple):
    """What an authority that follows another one shows.

    Attributes:
      own: Signed by its own key, for those who trust it.
      bridge: The same key, signed by the authority before: who trusts that one alone
        still trusts what the new one signs (RFC 4210, section 4.4).
    """

    own: x509.Certificate
    bridge: x509.Certificate


def new_key() -> Key:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def authority_certificate(
    key: Key, *, name: str, now: datetime.datetime
) -> x509.Certificate:
    """The authority's own: signs leaves and nothing below them, for ten years."""
    subject = _common_name(f"{name} fedtrain authority")
    return _authority(subject, key.public_key(), now).sign(key, hashes.SHA256())


def next_authority(key: Key, before: "Issuer", now: datetime.datetime) -> Succession:
    """The certificates of an authority that follows ``before`` under the same name."""
    subject = before.certificate.subject
    builder = _authority(subject, key.public_key(), now)
    return Succession(
        own=builder.sign(key, hashes.SHA256()), bridge=before.sign_next(builder)
    )


def client_leaf(
    public_key: PublicKey,
    client_id: str,
    *,
    issuer: "Issuer",
    now: datetime.datetime,
    days: int = LEAF_DAYS,
) -> x509.Certificate:
    """A partner's: its name and role in the SAN, for TLS clients alone."""
    names = [x509.UniformResourceIdentifier(client_uri(client_id))]
    builder = _builder(_common_name(client_id), public_key, now=now, days=days)
    return issuer.sign(builder, names, ExtendedKeyUsageOID.CLIENT_AUTH)


def server_leaf(
    public_key: PublicKey,
    name: str,
    *,
    hosts: Sequence[str],
    issuer: "Issuer",
    now: datetime.datetime,
) -> x509.Certificate:
    """The aggregator's: its hosts in the SAN, for TLS servers alone."""
    names = [x509.UniformResourceIdentifier(server_uri(name)), *map(_host, hosts)]
    builder = _builder(_common_name(name), public_key, now=now, days=LEAF_DAYS)
    return issuer.sign(builder, names, ExtendedKeyUsageOID.SERVER_AUTH)


def operator_leaf(
    public_key: PublicKey, name: str, *, issuer: "Issuer", now: datetime.datetime
) -> x509.Certificate:
    """One that opens the operator's page, and nothing else; for TLS clients alone."""
    names = [x509.UniformResourceIdentifier(operator_uri(name))]
    builder = _builder(_common_name(name), public_key, now=now, days=LEAF_DAYS)
    return issuer.sign(builder, names, ExtendedKeyUsageOID.CLIENT_AUTH)


class Issuer:
    """The authority's key and certificate, which sign leaves."""

    def __init__(self, key: Key, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    def sign(
        self,
        builder: x509.CertificateBuilder,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        """The leaf that ``builder`` describes, named ``names``, for ``usage`` alone."""
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs_leaves=False), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.SubjectAlternativeName(names), False),
            (self._identifier(), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        issued = builder.issuer_name(self.certificate.subject)
        return issued.sign(self._key, hashes.SHA256())

    def sign_next(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """The bridge to the authority that ``builder`` describes."""
        described = builder.add_extension(self._identifier(), critical=False)
        return described.sign(self._key, hashes.SHA256())

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )


def _builder(
    subject: x509.Name, key: PublicKey, *, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now - _SKEW + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(
    subject: x509.Name, key: PublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    builder = _builder(subject, key, now=now, days=_AUTHORITY_DAYS)
    builder = builder.issuer_name(subject).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return builder.add_extension(_usage(signs_leaves=True), critical=True)


def _usage(*, signs_leaves: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_leaves,
        key_cert_sign=signs_leaves,
        crl_sign=signs_leaves,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise IdentityError(
            f"hosts must be names or addresses without a port, got {host!r}; write "
            "a name with other letters in its ASCII form (xn--...)."
        )
    return x509.DNSName(host)
