"""Ed25519 signatures by a key of the user's own, made when it is first needed."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import sync_folder
from fedtrain.export.needs import needed

_REASON = "Signing a release"


def key_path() -> Path:
    """``$XDG_CONFIG_HOME/fedtrain/signing_key.pem``, by default below ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "fedtrain" / "signing_key.pem"


def signing_key(path: Path | None = None) -> Any:
    """The user's private key; made, readable by its owner alone, if there is none.

    Raises:
      ConfigError: If the file is no Ed25519 key, or others may read it.
    """
    path = path or key_path()
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            f"Others may read the signing key {path}; take that away with chmod 600, "
            "or delete the key if they may have read it."
        )
    serialization = needed(
        "cryptography.hazmat.primitives.serialization", reason=_REASON
    )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a private key: {error}.") from error
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key; move it away.")
    return key


def public_text(key: Any) -> str:
    """The public half of ``key``, 32 bytes in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def fingerprint(public_key: str) -> str:
    """A short name of a public key: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]


def signature(key: Any, content: bytes) -> str:
    """The signature of ``content`` in base64."""
    return base64.b64encode(key.sign(content)).decode()


def is_signed(content: bytes, *, signature: str, public_key: str) -> bool:
    """Whether the owner of ``public_key`` signed exactly ``content``."""
    invalid = needed("cryptography.exceptions", reason="Checking a signature")
    try:
        key = _ed25519().Ed25519PublicKey.from_public_bytes(
            base64.b64decode(public_key, validate=True)
        )
        key.verify(base64.b64decode(signature, validate=True), content)
    except (invalid.InvalidSignature, ValueError):
        return False
    return True


def _make(path: Path) -> None:
    key = _ed25519().Ed25519PrivateKey.generate()
    serialization = needed(
        "cryptography.hazmat.primitives.serialization", reason=_REASON
    )
    content = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _keep_first(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _keep_first(beside: Path, path: Path) -> None:
    """Two first exports at once keep one key: the link that came first."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return


def _ed25519() -> Any:
    return needed("cryptography.hazmat.primitives.asymmetric.ed25519", reason=_REASON)
