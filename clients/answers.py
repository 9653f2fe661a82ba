"""Answers on the partner's own disk, from before they leave until they are old.

Asked for the same round again, after whatever crash, the agent sends the same bytes: an
answer computed twice would show its noise twice. What the client keeps for the next
round lies in the same file, so that neither is there without the other.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.work import RoundTask
from fedtrain.core.files import written_atomically
from fedtrain.wire import arrays as wire_arrays
from fedtrain.wire.arrays import CHUNK_BYTES, Array, ArraySpec

_NUM_KEPT = 4
_MOST_HEADER_BYTES = 64 * 1024
_NOT_KNOWN = "0" * 64


@dataclass(frozen=True)
class Answer:
    """One that is on the disk, whole.

    Attributes:
      path: Its file: a line of JSON, the bytes, and what the client keeps.
      facts: The line: the task, ``num_bytes``, ``sha256``, and what else is known.
      start: Where the bytes begin.
    """

    path: Path
    facts: Mapping[str, Any]
    start: int

    def parts(self) -> Iterator[bytes]:
        """The bytes, in parts of 256 KiB."""
        left = self.facts["num_bytes"]
        with self.path.open("rb") as file:
            file.seek(self.start)
            while part := file.read(min(CHUNK_BYTES, left)):
                left -= len(part)
                yield part

    def kept(self) -> bytes:
        """What the client keeps for the next round; empty if the disk damaged it."""
        with self.path.open("rb") as file:
            file.seek(self.start + self.facts["num_bytes"])
            content = file.read()
        expected = self.facts.get("kept_sha256")
        return content if _sha256(iter([content])) == expected else b""


class Answers:
    """The newest answers of one client, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder

    def load(self, task: RoundTask) -> Answer | None:
        """The answer to ``task``; None where there is none, or its file is damaged."""
        path = self._folder / task.name
        try:
            answer = _answer_in(path)
            is_whole = _sha256(answer.parts()) == answer.facts["sha256"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            is_whole = False
        if is_whole and answer.facts["broadcast_sha256"] == task.broadcast_sha256:
            return answer
        path.unlink()
        return None

    def kept(self, task: RoundTask) -> bytes:
        """What was kept with the newest answer to an earlier round of training.

        Not with an earlier attempt at the same round: that answer is in no sum, so what
        it left over is not what ``task`` starts from. Empty where there is none.
        """
        found = _before(self._in_order(), task.run_id, task.round_number)
        return found.kept() if found is not None else b""

    def save(
        self,
        task: RoundTask,
        specs: Sequence[ArraySpec],
        arrays: Sequence[Array],
        facts: Mapping[str, Any],
        kept: bytes = b"",
    ) -> Answer:
        """Writes, syncs, renames; then removes all but the newest few.

        Args:
          task: What is answered.
          specs: Of the answer.
          arrays: The answer.
          facts: Plain values to remember with it.
          kept: What the client keeps for the next round.

        Raises:
          WireError: If ``arrays`` are not of these ``specs``.
        """
        before = self._in_order()
        known = {
            **facts,
            "order": _order(before[-1]) + 1 if before else 0,
            "kept_sha256": _sha256(iter([kept])),
            "broadcast_sha256": task.broadcast_sha256,
            "num_bytes": wire_arrays.num_bytes(specs),
            "sha256": _NOT_KNOWN,
        }
        path = self._folder / task.name
        with written_atomically(path, mode=0o600) as file:
            file.write(_line(known))
            start, digest = file.tell(), hashlib.sha256()
            for part in wire_arrays.chunks(specs, arrays):
                digest.update(part)
                file.write(part)
            file.write(kept)
            file.seek(0)
            known["sha256"] = digest.hexdigest()
            file.write(_line(known))
        self._forget_old()
        return Answer(path, known, start)

    def _forget_old(self) -> None:
        answers = self._in_order()
        kept = answers[-_NUM_KEPT:]
        for answer in kept[-1:]:  # a further attempt starts from the round before
            start = _before(answers, *_round_of(answer))
            kept = kept if start is None else [start, *kept]
        newest = {answer.path for answer in kept}
        for path in self._folder.iterdir():
            if path not in newest:
                path.unlink()

    def _in_order(self) -> list[Answer]:
        """All answers that can be read, the newest last, whatever the clock did."""
        found = []
        for path in self._folder.glob("[!.]*"):
            try:
                found.append(_answer_in(path))
            except (OSError, ValueError):
                continue  # damaged, and found so when it is asked for
        return sorted(found, key=_order)


def _before(answers: Sequence[Answer], run_id: str, round_number: int) -> Answer | None:
    """The newest of ``answers`` to a round of training before this one."""
    for answer in reversed(answers):
        run, number = _round_of(answer)
        is_of_training = answer.path.name.endswith(".train")
        if is_of_training and run == run_id and number < round_number:
            return answer
    return None


def _round_of(answer: Answer) -> tuple[str, int]:
    run_id, number, _, _ = answer.path.name.rsplit(".", 3)
    return run_id, int(number)


def _answer_in(path: Path) -> Answer:
    with path.open("rb") as file:
        line = file.readline(_MOST_HEADER_BYTES)
    facts = json.loads(line)
    is_whole = isinstance(facts, dict) and isinstance(facts.get("order", 0), int)
    if not is_whole:
        raise ValueError("The first line is damaged.")
    return Answer(path, facts, len(line))


def _order(answer: Answer) -> int:
    return int(answer.facts.get("order", -1))


def _sha256(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts).encode() + b"\n"
