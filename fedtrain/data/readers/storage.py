"""Files by path or fsspec URL (``s3://``, ``gs://``, ``hdfs://``, ``https://`` ...)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import fsspec

from fedtrain.core.errors import DataError


def is_pattern(source: str) -> bool:
    """Whether a path or URL names all files that match its ``*``, ``?`` or ``[]``."""
    # A web address has its query after "?"; fsspec sees no pattern in it either.
    is_web = source.startswith(("http://", "https://"))
    return any(mark in source for mark in ("*[" if is_web else "*?["))


def expanded(source: str) -> list[str]:
    """The files that a path or URL names: itself, or all that match a pattern."""
    if not is_pattern(source):
        return [source]
    with _explained(source):
        files = fsspec.open_files(source, "rb")
    if not files:
        raise DataError(f"No file matches {source!r}.")
    return sorted(file.full_name for file in files)


@contextmanager
def open_binary(source: str) -> Iterator[BinaryIO]:
    """The content of ``source``, decompressed where its name ends in .gz, .bz2, .xz."""
    with (
        _explained(source),
        fsspec.open(source, "rb", compression="infer") as file,
    ):
        yield file


def local_path(source: str) -> str:
    """A local path with the content of ``source``; a remote file is copied first."""
    with _explained(source):
        if "://" not in source:
            with open(source, "rb"):
                return source
        return str(fsspec.open_local(f"simplecache::{source}", mode="rb"))


@contextmanager
def _explained(source: str) -> Iterator[Any]:
    try:
        yield
    except (ImportError, ValueError) as error:
        if "://" not in source:
            raise
        raise DataError(f"{source!r} cannot be opened: {error}.") from error
    except OSError as error:
        raise DataError(f"{source!r} cannot be read: {error}.") from error
