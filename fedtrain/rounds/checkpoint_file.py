"""The file of a checkpoint: a line of JSON with a hash of all else, then arrays.

The arrays are in numpy's own format. They pass one by one, in parts: neither writing
nor checking a file takes memory for all of them. No TensorFlow is needed.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

_NOT_KNOWN = "0" * 64
_PART_BYTES = 1024 * 1024


def write(
    file: BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Writes both to ``file``, which can be sought; the hash goes in last."""
    start = file.tell()
    file.write(_line(header, _NOT_KNOWN))
    body = _Hashed(file, _digest_of(header))
    np.savez(body, **arrays)
    file.seek(start)
    file.write(_line(header, body.digest.hexdigest()))


def intact_header(file: BinaryIO) -> dict[str, Any] | None:
    """The header, with its ``sha256``; None if the file does not match that."""
    try:
        header = json.loads(file.readline())
    except ValueError:
        return None
    if not isinstance(header, dict):
        return None
    digest = _digest_of(header)
    while part := file.read(_PART_BYTES):
        digest.update(part)
    return header if header.get("sha256") == digest.hexdigest() else None


def generations(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob("round-*.ckpt"), reverse=True)


def ledger_heads(folder: Path) -> Iterator[Mapping[str, Any] | None]:
    """How long the privacy ledger was at each intact checkpoint, the newest first."""
    for path in generations(folder):
        with path.open("rb") as file:
            header = intact_header(file)
        if header is not None:
            yield header["ledger_head"]


def arrays_in(file: BinaryIO) -> Any:
    """The arrays of a file whose header was read, each loaded when it is asked for."""
    file.seek(0)
    file.readline()
    return np.load(file, allow_pickle=False)


class _Hashed(io.RawIOBase):
    """Writes to ``file`` what it hashes; cannot be sought, so each byte is the last.

    Args:
      file: Where all goes.
      digest: Of what was before.
    """

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        super().__init__()
        self._file = file
        self.digest = digest

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self._file.write(content)


def _line(header: Mapping[str, Any], sha256: str) -> bytes:
    return json.dumps({**header, "sha256": sha256}).encode() + b"\n"


def _digest_of(header: Mapping[str, Any]) -> Any:
    """A hash that begins with the header, without its own hash."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
