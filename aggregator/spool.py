"""Broadcasts and contributions on the disk: written aside, then renamed.

A file's name holds the hash of its content, so a file of that name is either whole or
damaged by the disk, which reading it finds out.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from aggregator.memory import aligned
from aggregator.round_state import RoundState
from fedtrain.core.errors import JournalError, WireError
from fedtrain.core.files import sync_folder
from fedtrain.wire.arrays import (
    CHUNK_BYTES,
    Array,
    ArraySpec,
    all_finite,
    from_bytes,
    num_bytes,
    parts_of_packed,
)

_READ_BYTES = 4 * CHUNK_BYTES
_NUM_HASHED = 2  # files at a time


class SpooledFile(NamedTuple):
    """Content that was written.

    Attributes:
      num_bytes: Its length.
      sha256: Of the content, in hexadecimal.
    """

    num_bytes: int
    sha256: str


class Piece(NamedTuple):
    """A part of one array.

    Attributes:
      array: Which of the arrays, from 0.
      start: Where the part begins in the flattened array.
      numbers: One axis.
    """

    array: int
    start: int
    numbers: Array


class SpoolWriter:
    """One file on its way to the disk; ``keep`` or ``drop`` ends it.

    Args:
      folder: Where it will be; made if needed.
      name: Tells it from others that are on their way at the same time.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(folder.parent)  # or the folder could be lost with its files
        self._folder = folder
        self.path = folder / f"{name}.part"
        self._file: BinaryIO = self.path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self.num_bytes = 0

    def write(self, content: bytes | memoryview) -> None:
        """Appends ``content``.

        Raises:
          OSError: If the disk does not take it.
        """
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(content)
        self.num_bytes += len(content)

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def keep(self, path: Path, *, is_durable: bool = True) -> None:
        """Moves the content to ``path``, in the same folder; syncs it if durable."""
        if is_durable:
            os.fsync(self._file.fileno())
        self._file.close()
        self.path.replace(path)
        if is_durable:
            sync_folder(self._folder)

    def drop(self) -> None:
        """Removes what was written, unless it was kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Spool:
    """The files of one run.

    Args:
      folder: Of the run; made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._broadcasts = folder / "broadcasts"
        self._checked = ""  # the broadcast that was found intact since the start
        for left in folder.glob("*/*.part"):
            left.unlink()

    def store_broadcast(self, chunks: Iterable[bytes]) -> SpooledFile:
        """Writes a broadcast, unless the same is there.

        All clients wait for it, so it is not synced: should a power failure damage it,
        this finds out, and writes it again from the checkpoint's weights.
        """
        writer = SpoolWriter(self._broadcasts, "new")
        try:
            for chunk in chunks:
                writer.write(chunk)
            path = self.broadcast(writer.sha256)
            if not is_intact(path, writer.sha256):
                writer.keep(path, is_durable=False)
        finally:
            writer.drop()
        self._checked = writer.sha256
        return SpooledFile(writer.num_bytes, writer.sha256)

    def has_broadcast(self, sha256: str) -> bool:
        """Whether the broadcast is there as it was written; hashes it once a start."""
        if sha256 != self._checked and is_intact(self.broadcast(sha256), sha256):
            self._checked = sha256
        return sha256 == self._checked and self.broadcast(sha256).is_file()

    def broadcast(self, sha256: str) -> Path:
        """Where the broadcast of this hash lies."""
        return self._broadcasts / f"{sha256}.bin"

    def contribution(self, state: RoundState, client_id: str, sha256: str) -> Path:
        """Where a client's contribution to a round lies."""
        position = state.cohort.index(client_id)
        return self._folder_of(state) / f"{position:05d}-{sha256}.bin"

    def contributions(self, state: RoundState) -> dict[str, tuple[Path, str]]:
        """Files and hashes of all contributions to a round, by client."""
        return {
            client: (self.contribution(state, client, found.sha256), found.sha256)
            for client, found in state.accepted.items()
        }

    def store_sum(self, state: RoundState, parts: Iterable[bytes]) -> str:
        """Makes the sum of a round durable; gives the hash of its bytes."""
        writer = SpoolWriter(self._folder_of(state), "sum")
        try:
            for part in parts:
                writer.write(part)
            writer.keep(self.sum_of(state, writer.sha256))
        finally:
            writer.drop()
        return writer.sha256

    def sum_of(self, state: RoundState, sha256: str) -> Path:
        """Where the sum of a round lies that secure aggregation has opened."""
        return self._folder_of(state) / f"sum-{sha256}.bin"

    def files_of(self, state: RoundState) -> dict[str, tuple[Path, str]]:
        """What the sum of a round is made of: contributions, or the opened sum."""
        if not state.is_secure:
            return self.contributions(state)
        if not state.sum_sha256:
            return {}
        return {"sum": (self.sum_of(state, state.sum_sha256), state.sum_sha256)}

    def keep_only(self, rounds: Iterable[RoundState]) -> None:
        """Removes the files of all other rounds."""
        rounds = tuple(rounds)
        broadcasts = {self.broadcast(state.broadcast_sha256) for state in rounds}
        folders = {self._folder_of(state) for state in rounds}
        for path in self._broadcasts.glob("*.bin"):
            if path not in broadcasts:
                path.unlink(missing_ok=True)
        for folder in self._folder.glob("*-*-*"):
            if folder not in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def _folder_of(self, state: RoundState) -> Path:
        name = f"{state.kind}-{state.round_number}-{state.attempt}"
        return self._folder / name


def chunks_of(path: Path) -> Iterator[bytes]:
    """The content of a file, in chunks of 256 KiB."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def is_intact(path: Path, sha256: str) -> bool:
    """Whether the file is there with the content of this hash."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def mapped(path: Path, specs: Sequence[ArraySpec]) -> list[Array]:
    """The arrays in a file, as views of a memory map.

    Raises:
      WireError: If the file is no such arrays.
    """
    if num_bytes(specs) == 0:
        return from_bytes(specs, path.read_bytes())
    return from_bytes(specs, np.memmap(path, dtype=np.uint8, mode="r"))


def pieces(path: Path, specs: Sequence[ArraySpec]) -> Iterator[Piece]:
    """The numbers in a file, at most a megabyte at a time.

    Raises:
      WireError: If the file does not hold such arrays.
    """
    _check_length(path, specs)
    step: Array | None = None
    with path.open("rb") as file:
        for index, spec in enumerate(specs):
            start = 0
            for numbers in _numbers(file, spec, step):
                yield Piece(index, start, numbers)
                start += numbers.size
                step = numbers[0] if spec.is_step else step


def _numbers(file: BinaryIO, spec: ArraySpec, step: Array | None) -> Iterator[Array]:
    if spec.packing is not None:
        yield from parts_of_packed(spec, _mapped_bytes(file, spec.num_bytes), step)
        return
    most = _READ_BYTES // ArraySpec((1,), spec.dtype).num_bytes
    for start in range(0, spec.size, most):
        part = ArraySpec((min(most, spec.size - start),), spec.dtype)
        (numbers,) = from_bytes([part], file.read(part.num_bytes))
        yield numbers


def _mapped_bytes(file: BinaryIO, count: int) -> Array:
    """The next bytes of ``file``, not in memory; goes on after them."""
    start = file.tell()
    if not count:
        return np.empty(0, np.uint8)
    content = np.memmap(file, dtype=np.uint8, mode="r", offset=start, shape=(count,))
    file.seek(start + count)
    return content


def _check_length(path: Path, specs: Sequence[ArraySpec]) -> None:
    found, expected = path.stat().st_size, num_bytes(specs)
    if found != expected:
        raise WireError(f"The arrays take {expected} bytes, but {path} has {found}.")


def is_finite(path: Path, specs: Sequence[ArraySpec]) -> bool:
    """Whether no array in a file holds a NaN or an infinity.

    Raises:
      WireError: If the file does not hold such arrays.
    """
    return all(all_finite([piece.numbers]) for piece in pieces(path, specs))


def added_up(
    paths: Iterable[tuple[Path, str]], specs: Sequence[ArraySpec]
) -> list[Array]:
    """The sum of contributions in the given order, each array in its own type.

    Memory is one sum and a megabyte. The first is copied, not added to zeros: that
    would change the sign of its zeros. The next files are hashed, which takes longest,
    while one is added.

    Args:
      paths: Files with the hashes of their content.
      specs: What is in each of them.

    Raises:
      JournalError: If a file is not what was acknowledged.
    """
    total: list[Array] = []
    for path in _intact(paths):
        is_first = not total
        if is_first:
            total = [aligned(spec.size, spec.dtype) for spec in specs]
        for piece in pieces(path, specs):
            end = piece.start + piece.numbers.size
            part = total[piece.array][piece.start : end]
            if is_first:
                part[:] = piece.numbers
            else:
                np.add(part, piece.numbers, out=part)
    return [sum_.reshape(spec.shape) for sum_, spec in zip(total, specs, strict=True)]


def _intact(paths: Iterable[tuple[Path, str]]) -> Iterator[Path]:
    known = tuple(paths)
    with ThreadPoolExecutor(_NUM_HASHED) as pool:
        checks = pool.map(lambda one: is_intact(*one), known)
        for (path, _), is_whole in zip(known, checks, strict=True):
            if not is_whole:
                raise JournalError(
                    f"{path} is not the contribution that was acknowledged: the disk "
                    "has damaged it. Start again: the round is then done without it."
                )
            yield path
