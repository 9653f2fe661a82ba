"""Mutual TLS as both sides set it: TLS 1.2 or 1.3, ECDHE with authenticated encryption.

gRPC's TLS (BoringSSL) starts at 1.2 and cannot be told another least version from
Python; its suites can be chosen, by an environment variable that is read once, when the
first credentials of a process are made. Whoever makes credentials makes them here.
"""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from fedtrain.wire.identity import TlsPair, read_private

# TLS 1.2's; all suites of TLS 1.3 are of this kind.
_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
CIPHER_SUITES = ":".join(_SUITES)


def server_credentials(
    pair: Callable[[], TlsPair], *, authority_pem: bytes
) -> grpc.ServerCredentials:
    """The aggregator's: every client shows a certificate of its authority.

    Args:
      pair: Asked at every handshake, so that a new certificate needs no restart. If it
        raises, the one before is used.
      authority_pem: Certificate of the authority that admits clients.
    """
    _choose_suites()
    first = pair()
    fetch = _Changes(pair, authority_pem, first)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first, authority_pem), fetch, require_client_authentication=True
    )


def channel_credentials(
    pair: TlsPair, *, authority_pem: bytes
) -> grpc.ChannelCredentials:
    """A client's: trusts the authority of its invitation, and none of the system's."""
    _choose_suites()
    return grpc.ssl_channel_credentials(
        authority_pem, pair.key_pem, pair.certificate_pem
    )


def channel_options(*, server_name: str) -> list[tuple[str, str | int]]:
    """Options of a channel to a server whose certificate must name ``server_name``."""
    return [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.default_authority", server_name),
        # A proxy in the environment is for the web; partners name it if they want it.
        ("grpc.enable_http_proxy", 0),
    ]


def page_context(pair_path: Path, *, authority_pem: bytes) -> ssl.SSLContext:
    """Of the operator's page: TLS 1.2 at least; a client may show a certificate.

    Load a new pair into the same context (``load_cert_chain``) to rotate it.

    Args:
      pair_path: The private file that holds the server's key and certificate.
      authority_pem: Certificate of the authority that admits clients.
    """
    read_private(pair_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHER_SUITES)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.load_cert_chain(pair_path)
    context.load_verify_locations(cadata=authority_pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class _Changes:
    """Gives gRPC a new configuration at a handshake, if there is a new pair."""

    def __init__(
        self, pair: Callable[[], TlsPair], authority_pem: bytes, first: TlsPair
    ) -> None:
        self._pair = pair
        self._authority_pem = authority_pem
        self._last = first

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            pair = self._pair()
        except Exception:  # noqa: BLE001 - a handshake goes on with what there is
            return None
        if pair == self._last:
            return None
        self._last = pair
        return _configuration(pair, self._authority_pem)


def _configuration(
    pair: TlsPair, authority_pem: bytes
) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pair.key_pem, pair.certificate_pem)], root_certificates=authority_pem
    )


def _choose_suites() -> None:
    os.environ["GRPC_SSL_CIPHER_SUITES"] = CIPHER_SUITES
