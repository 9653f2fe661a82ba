"""Answers on the partner's own disk, from before they leave until they are old.

Asked for the same round again, after whatever crash, the agent sends the same bytes: an
answer computed twice would show its noise twice.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.work import RoundTask
from fedtrain.core.files import sync_folder
from fedtrain.wire import arrays as wire_arrays
from fedtrain.wire.arrays import CHUNK_BYTES, Array, ArraySpec

_NUM_KEPT = 4
_MOST_HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """One that is on the disk, whole.

    Attributes:
      path: Its file: a line of JSON, then the bytes.
      facts: The line: the task, ``num_bytes``, ``sha256``, and what else was kept.
      start: Where the bytes begin.
    """

    path: Path
    facts: Mapping[str, Any]
    start: int

    def parts(self) -> Iterator[bytes]:
        """The bytes, in parts of 256 KiB."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            while part := file.read(CHUNK_BYTES):
                yield part


class Answers:
    """The newest answers of one client, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    def load(self, task: RoundTask) -> Answer | None:
        """The answer to ``task``; None where there is none, or its file is damaged."""
        path = self._folder / task.name
        try:
            with path.open("rb") as file:
                line = file.readline(_MOST_HEADER_BYTES)
            answer = Answer(path, json.loads(line), len(line))
            is_whole = _sha256(answer.parts()) == answer.facts["sha256"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            is_whole = False
        if is_whole and answer.facts["broadcast_sha256"] == task.broadcast_sha256:
            return answer
        path.unlink()
        return None

    def save(
        self,
        task: RoundTask,
        specs: Sequence[ArraySpec],
        arrays: Sequence[Array],
        facts: Mapping[str, Any],
    ) -> Answer:
        """Writes, syncs, renames; then removes all but the newest few.

        Raises:
          WireError: If ``arrays`` are not of these ``specs``.
        """
        known = {
            **facts,
            "broadcast_sha256": task.broadcast_sha256,
            "num_bytes": wire_arrays.num_bytes(specs),
            "sha256": _sha256(wire_arrays.chunks(specs, arrays)),
        }
        line = json.dumps(known).encode() + b"\n"
        path = self._folder / task.name
        beside = self._folder / f".{task.name}.tmp"
        with open(beside, "wb", opener=_private) as file:
            file.write(line)
            file.writelines(wire_arrays.chunks(specs, arrays))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(self._folder)
        self._forget_old()
        return Answer(path, known, len(line))

    def _forget_old(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in files[:-_NUM_KEPT]:
            path.unlink()


def _sha256(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
