"""Mutual TLS over sockets, with the cipher that gRPC chooses on this processor."""

import ssl
from pathlib import Path

from simulations.service.workload import Weights

_SUITE = "ECDHE-ECDSA-AES128-GCM-SHA256"
_PART_BYTES = 1024 * 1024


def context(folder: Path, pair: Path, *, is_server: bool) -> ssl.SSLContext:
    """Of one side; both show certificates.

    Args:
      folder: Of the run.
      pair: PEM file with key and certificate.
      is_server: Which side it is.
    """
    protocol = ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT
    made = ssl.SSLContext(protocol)
    # OpenSSL's TLS 1.3 takes AES-256 first, and Python cannot say otherwise.
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_SUITE)
    made.load_verify_locations(folder / "authority.pem")
    made.load_cert_chain(pair)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def send(connection: ssl.SSLSocket, weights: Weights) -> None:
    """All of ``weights``."""
    view = memoryview(weights).cast("B")
    for begin in range(0, len(view), _PART_BYTES):
        connection.sendall(view[begin : begin + _PART_BYTES])


def receive(connection: ssl.SSLSocket, weights: Weights) -> bool:
    """Fills ``weights``; false if the other side has gone instead."""
    view = memoryview(weights).cast("B")
    begin = 0
    while begin < len(view):
        count = connection.recv_into(view[begin : begin + _PART_BYTES])
        if not count:
            return False
        begin += count
    return True
