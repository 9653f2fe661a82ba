"""Cryptographic random words: AES-256 in counter mode under a key that is given.

Noise and samples that are released come from here. A key drawn from the operating
system makes them unpredictable; the same key and labels give the same words, so a
retried round can repeat its noise.

Source: NIST SP 800-38A (counter mode); Krawczyk (2010), RFC 5869 (HKDF).
"""

import secrets
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedtrain.core.errors import ConfigError

KEY_BYTES = 32
Words = npt.NDArray[np.uint64]


def new_key() -> bytes:
    """A key of 32 bytes from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


class WordSource(Protocol):
    """Where uniform words come from: a ``KeyStream``."""

    def words(self, num: int) -> Words:
        """The next ``num`` words, uint64."""
        ...


class KeyStream:
    """Uniform 64-bit words that nobody without the key can tell from random ones.

    Streams of one key with other labels are independent. It is a reader with a place:
    each call goes on where the last one ended.
    """

    def __init__(self, key: bytes, *labels: str | int | bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigError(
                f"A noise key has {KEY_BYTES} bytes, got {len(key)}. Use new_key()."
            )
        info = b"".join(_framed(label) for label in labels)
        derived = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(key)
        cipher = Cipher(algorithms.AES(derived), modes.CTR(bytes(16)))
        self._encryptor: Any = cipher.encryptor()

    def words(self, num: int) -> Words:
        """The next ``num`` words, uint64."""
        return np.frombuffer(self._encryptor.update(bytes(8 * num)), "<u8")

    def __repr__(self) -> str:
        return "KeyStream(key=...)"


def _framed(label: str | int | bytes) -> bytes:
    plain = label if isinstance(label, bytes) else str(label).encode()
    kind = type(label).__name__.encode()
    return b"".join(len(part).to_bytes(4, "little") + part for part in (kind, plain))
