"""The key of a released run's noise: a file that only its owner reads.

It is not the run's seed. It lies outside the run's folder, its checkpoints and its
exports, and is on disk before the first charge: after a crash the same round draws the
same noise. It is deleted when the run ends.
"""

import hashlib
import os
import secrets
from pathlib import Path

from fedtrain.core.errors import PrivacyError
from fedtrain.core.files import sync_folder
from fedtrain.core.keystream import KEY_BYTES, new_key
from fedtrain.core.state_dir import file_stem, state_dir


def noise_key_path(run_id: str) -> Path:
    """``$FEDTRAIN_STATE_DIR/noise/<run>.key``."""
    return state_dir() / "noise" / f"{file_stem(run_id)}.key"


def noise_key(path: Path) -> bytes:
    """The key in ``path``, of 32 bytes; a new one where there is none.

    Call it before the first charge of the run. A new key comes from the operating
    system and is synced, with its folder, before this returns; of several processes
    that make one at once, all get the same.

    Raises:
      PrivacyError: Others may read the file, it belongs to another user, it is no
        regular file, or it has another length.
    """
    if not os.path.lexists(path):
        _make(path)
    return _read(path)


def key_fingerprint(key: bytes) -> str:
    """Names a key and tells nothing of it: 16 hexadecimal digits."""
    return hashlib.sha256(b"fedtrain noise key " + key).hexdigest()[:16]


def forget_noise_key(path: Path) -> None:
    """Deletes the key, where there is one: the run's noise can no longer be repeated.

    The file is overwritten first; a file system or a disk that keeps old blocks may
    still hold them, which this cannot change.
    """
    try:
        with path.open("r+b") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(beside, flags, 0o600), "wb") as file:
        file.write(new_key())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, path)
    except FileExistsError:
        pass  # another process was first, and its key is the run's
    finally:
        beside.unlink()
    sync_folder(path.parent)


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_mode & 0o177 or facts.st_uid != os.getuid():
            raise PrivacyError(
                f"The noise key {path} can be read by others (mode "
                f"{facts.st_mode & 0o777:o}, owner {facts.st_uid}), so its noise "
                "protects nothing. Start a new run, whose key nobody has seen."
            )
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise PrivacyError(
            f"The noise key {path} has {len(key)} bytes, not {KEY_BYTES}: it was not "
            "written here. Start a new run."
        )
    return key
