"""Writing a packed data set: clients go in one after another, in constant memory."""

import array
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fedtrain.core.errors import DataError
from fedtrain.core.files import sync_folder
from fedtrain.data.examples import Array, Examples, feature_arrays

FORMAT = "fedtrain-packed"
VERSION = 1
HEADER = "header.json"
_BUFFER_BYTES = 1 << 20


@contextmanager
def whole_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder that appears at ``path`` complete and synced, or not at all."""
    if path.exists() and not overwrite:
        raise DataError(f"{path} is already there; remove it, or pass overwrite=True.")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        sync_folder(beside)
        _replace_folder(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class PackedWriter:
    """Appends clients to the files of a packed data set.

    Memory does not grow with the rows; eight bytes are kept for each client, to notice
    a client that comes twice.
    """

    def __init__(self, folder: Path) -> None:
        """Files go to ``folder``, which must be empty."""
        self._folder = folder
        self._columns: dict[str, _Column] = {}
        self._inputs: list[str] | None = None
        self._ids = _Column(folder / "client_ids.bin", np.dtype("u1"), ())
        self._id_ends = _Column(folder / "client_id_offsets.bin", np.dtype("<i8"), ())
        self._ends = _Column(folder / "offsets.bin", np.dtype("<i8"), ())
        for ends in (self._id_ends, self._ends):
            ends.append(np.zeros(1, np.int64))
        self._hashes = array.array("Q")
        self._num_rows = 0

    def clients(self, client_ids: Sequence[str], num_rows: Sequence[int]) -> None:
        """The next rows: ``num_rows[i]`` (0 is allowed) for each of ``client_ids``."""
        encoded = [str(client_id).encode() for client_id in client_ids]
        self._hashes.frombytes(
            b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in encoded)
        )
        self._append_ends(self._id_ends, self._ids.num_rows, list(map(len, encoded)))
        self._ids.append(np.frombuffer(b"".join(encoded), np.uint8))
        self._num_rows = self._append_ends(self._ends, self._num_rows, num_rows)

    def rows(self, examples: Examples, *, owner: str) -> None:
        """Appends rows; ``owner`` names them in an error."""
        arrays = _named_arrays(examples)
        if not self._columns:
            self._open(examples, arrays)
        if list(arrays) != list(self._columns):
            raise DataError(
                f"{owner} has the arrays {list(arrays)}, but the first client has "
                f"{list(self._columns)}."
            )
        for name, values in arrays.items():
            self._columns[name].append(values, owner=f"{owner}: {name}")

    def finish(self, description: dict[str, Any]) -> None:
        """Syncs the files and writes the header; ``description`` goes into it."""
        self._check_complete()
        own = {
            "client_ids": self._ids,
            "client_id_offsets": self._id_ends,
            "offsets": self._ends,
        }
        header = {
            "format": FORMAT,
            "version": VERSION,
            **description,
            "inputs": self._inputs,
            "num_clients": len(self._hashes),
            "num_examples": self._num_rows,
            "arrays": {
                name: column.finish()
                for name, column in {**self._columns, **own}.items()
            },
        }
        with (self._folder / HEADER).open("w", encoding="utf-8") as file:
            json.dump(header, file, indent=1, default=str)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Closes the files, also after an error."""
        for column in (*self._columns.values(), self._ids, self._id_ends, self._ends):
            column.close()

    def _append_ends(self, column: "_Column", last: int, lengths: Any) -> int:
        ends = last + np.cumsum(lengths, dtype=np.int64)
        column.append(ends)
        return int(ends[-1]) if len(ends) else last

    def _open(self, examples: Examples, arrays: dict[str, Array]) -> None:
        is_dict = isinstance(examples.features, dict)
        self._inputs = list(examples.features) if is_dict else None
        for number, (name, values) in enumerate(arrays.items()):
            dtype = values.dtype.newbyteorder("<")
            if dtype.kind not in "biuf":
                raise DataError(
                    f"{name} holds {values.dtype}, but packed arrays hold numbers; "
                    "encode text as numbers first (a schema does)."
                )
            path = self._folder / f"array_{number:03d}.bin"
            self._columns[name] = _Column(path, dtype, values.shape[1:])

    def _check_complete(self) -> None:
        if not self._columns:
            raise DataError("There are no clients to pack; give at least one.")
        rows = next(iter(self._columns.values())).num_rows
        if rows != self._num_rows:
            raise DataError(f"{rows} rows came for clients that have {self._num_rows}.")
        hashes, counts = np.unique(self._hashes, return_counts=True)
        if counts.max() > 1:
            places = np.flatnonzero(np.asarray(self._hashes) == hashes[counts.argmax()])
            raise DataError(
                f"The clients at positions {places[0]} and {places[1]} have the same "
                "id; give the rows of one client together."
            )


class _Column:
    """One array on disk, appended to and hashed on the way."""

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...]) -> None:
        self.num_rows = 0
        self._path, self._dtype, self._row_shape = path, dtype, row_shape
        self._sha256 = hashlib.sha256()
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._pending = bytearray()

    def append(self, values: Array, *, owner: str = "") -> None:
        same_dtype = values.dtype.newbyteorder("<") == self._dtype
        if not same_dtype or values.shape[1:] != self._row_shape:
            raise DataError(
                f"{owner} has rows of shape {values.shape[1:]} and {values.dtype}, but "
                f"the first client's have {self._row_shape} and {self._dtype}."
            )
        self.num_rows += len(values)
        whole = np.ascontiguousarray(values, self._dtype).reshape(-1)
        content = whole.view(np.uint8).data
        if len(content) >= _BUFFER_BYTES:
            self._flush()
            self._write(content)
            return
        self._pending += content
        if len(self._pending) >= _BUFFER_BYTES:
            self._flush()

    def finish(self) -> dict[str, Any]:
        """Syncs, and describes the array for the header."""
        self._flush()
        os.fsync(self._file.fileno())
        return {
            "file": self._path.name,
            "dtype": self._dtype.str,
            "shape": [self.num_rows, *self._row_shape],
            "sha256": self._sha256.hexdigest(),
        }

    def close(self) -> None:
        self._file.close()

    def _flush(self) -> None:
        self._write(memoryview(self._pending))
        self._pending = bytearray()

    def _write(self, content: memoryview) -> None:
        self._sha256.update(content)
        while content:
            content = content[self._file.write(content) :]


def _named_arrays(examples: Examples) -> dict[str, Array]:
    optional = {"weights": examples.weights, "entity_ids": examples.entity_ids}
    named = {**dict(feature_arrays(examples.features)), "labels": examples.labels}
    named |= {name: values for name, values in optional.items() if values is not None}
    return {name: np.asarray(values) for name, values in named.items()}


def _replace_folder(source: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    source.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
