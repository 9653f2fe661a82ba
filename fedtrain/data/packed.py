"""Packed data sets: a folder of memory-mapped arrays, ordered by client.

``header.json`` names the format's version and, for every array, its file, type, shape
and SHA-256. The arrays are raw little-endian numbers: the rows' (features, labels,
weights, entity ids), ``offsets`` (where each client's rows start) and the client ids
(UTF-8, one after another, with offsets of their own). Opening reads the header alone.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from fedtrain.core.errors import DataError
from fedtrain.data.dataset import FederatedDataset, Sensitivity
from fedtrain.data.dataset_check import check_dataset, check_examples
from fedtrain.data.examples import Array, Examples
from fedtrain.data.packed_writer import (
    FORMAT,
    HEADER,
    VERSION,
    PackedWriter,
    whole_folder,
)

Clients = Iterable[tuple[str, Examples]]
_BLOCK_ROWS = 1 << 16
_BLOCK_CLIENTS = 1 << 16


def pack(
    source: FederatedDataset | Clients,
    path: str | Path,
    *,
    sensitivity: Sensitivity | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> FederatedDataset:
    """Writes clients to the folder ``path`` and opens it.

    Args:
      source: A data set, or pairs of a client's id and all of its rows. Pairs are taken
        one after another, so a source larger than memory can be packed.
      path: A local folder that is not there yet. It appears complete or not at all.
      sensitivity: ``"private"`` by default, or the source's own.
      name: For messages and reports; the source's own, or the folder's.
      overwrite: Whether a folder that is there may be replaced.

    Raises:
      DataError: If clients differ in arrays, types or shapes, one comes twice, or a
        number is not finite: what is packed needs no such check again.
    """
    folder = _local(path)
    described = _description(source, folder, sensitivity, name)
    if isinstance(source, FederatedDataset):
        check_dataset(source)
    with whole_folder(folder, overwrite=overwrite) as beside:
        writer = PackedWriter(beside)
        with closing(writer):
            for owner, client_ids, sizes, rows in _blocks(source):
                writer.clients(client_ids, sizes)
                for start in range(0, max(rows.num_examples, 1), _BLOCK_ROWS):
                    writer.rows(rows.slice(start, start + _BLOCK_ROWS), owner=owner)
            writer.finish(described)
    return open_packed(folder)


def open_packed(path: str | Path) -> FederatedDataset:
    """The data set in the folder ``path``, mapped from disk in constant memory.

    Raises:
      DataError: If the folder holds no packed data set of this version, or one of its
        files is shorter or longer than the header says.
    """
    folder = _local(path)
    header, digest = _header(folder)
    arrays = {name: _mapped(folder, name, of) for name, of in header["arrays"].items()}
    inputs = header["inputs"]
    examples = Examples(
        features=arrays["features"]
        if inputs is None
        else {name: arrays[f"features[{name!r}]"] for name in inputs},
        labels=arrays["labels"],
        weights=arrays.get("weights"),
        entity_ids=arrays.get("entity_ids"),
    )
    return FederatedDataset(
        examples=examples,
        offsets=arrays["offsets"],
        client_ids=PackedStrings(arrays["client_ids"], arrays["client_id_offsets"]),
        sensitivity=header["sensitivity"],
        name=header["name"],
        info={**header["info"], "packed_sha256": digest},
    )


def verify_packed(path: str | Path) -> None:
    """Reads every byte and compares it with the header's SHA-256.

    Raises:
      DataError: Naming the first file that differs.
    """
    folder = _local(path)
    header, _ = _header(folder)
    for array in header["arrays"].values():
        with (folder / array["file"]).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != array["sha256"]:
            raise DataError(
                f"{folder / array['file']} has SHA-256 {digest}, but {HEADER} says "
                f"{array['sha256']}: the file is damaged. Pack the data again."
            )


class PackedStrings(Sequence[str]):
    """Strings as UTF-8 bytes one after another, and where each of them starts."""

    def __init__(self, content: Array, offsets: Array) -> None:
        """``content`` is uint8 [bytes], ``offsets`` int64 [strings + 1]."""
        self._content = content
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The string at ``index``; a list for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"position {index} of {len(self)} client ids")
        place = int(index) % len(self)
        start, stop = self._offsets[place : place + 2]
        return self._content[start:stop].tobytes().decode()

    def at(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The strings at ``positions``, none of them negative, in one go."""
        starts, stops = self._offsets[positions], self._offsets[positions + 1]
        lengths = stops - starts
        ends = np.cumsum(lengths)
        places = np.repeat(starts - ends + lengths, lengths) + np.arange(lengths.sum())
        content = self._content[places].tobytes()
        bounds = itertools.pairwise([0, *ends.tolist()])
        return [content[start:stop].decode() for start, stop in bounds]


def _blocks(
    source: FederatedDataset | Clients,
) -> Iterator[tuple[str, Sequence[str], Sequence[int], Examples]]:
    """Who owns the rows, for messages; client ids, their numbers of rows, the rows."""
    if not isinstance(source, FederatedDataset):
        for client_id, rows in source:
            check_examples(rows, where=f"client {client_id!r}")
            yield f"client {client_id!r}", [client_id], [rows.num_examples], rows
        return
    for start in range(0, source.num_clients, _BLOCK_CLIENTS):
        stop = min(start + _BLOCK_CLIENTS, source.num_clients)
        offsets = source.offsets[start : stop + 1]
        client_ids = source.client_ids_at(np.arange(start, stop))
        rows = source.examples.slice(int(offsets[0]), int(offsets[-1]))
        yield source.name, client_ids, np.diff(offsets).tolist(), rows


def _description(
    source: FederatedDataset | Clients, folder: Path, sensitivity: Any, name: Any
) -> dict[str, Any]:
    if isinstance(source, FederatedDataset):
        return {
            "name": name or source.name,
            "sensitivity": sensitivity or source.sensitivity,
            "info": dict(source.info),
        }
    return {
        "name": name or folder.name,
        "sensitivity": sensitivity or "private",
        "info": {},
    }


def _header(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / HEADER
    if not path.is_file():
        raise DataError(f"{folder} is not a packed data set: it has no {HEADER}.")
    content = path.read_bytes()
    try:
        header = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}. Pack the data again.") from error
    found = (header.get("format"), header.get("version"))
    if found != (FORMAT, VERSION):
        raise DataError(
            f"{path} has format and version {found}, but this fedtrain reads "
            f"{(FORMAT, VERSION)}; pack the data again."
        )
    return header, hashlib.sha256(content).hexdigest()


def _mapped(folder: Path, name: str, array: dict[str, Any]) -> Array:
    dtype, shape = np.dtype(array["dtype"]), tuple(array["shape"])
    path = folder / Path(array["file"]).name
    expected = math.prod(shape) * dtype.itemsize
    size = path.stat().st_size if path.is_file() else None
    if size != expected or dtype.kind not in "biuf":
        raise DataError(
            f"{path} ({name}) should hold {expected} bytes of {dtype}, found {size}: "
            "the file is damaged. Pack the data again."
        )
    if size == 0:
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise DataError(
            f"{path} is a URL, but packed data are mapped into memory from a local "
            "disk; copy the folder to one first."
        )
    return Path(path)
