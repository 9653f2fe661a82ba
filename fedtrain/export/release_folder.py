"""Numbered folders that appear whole: written aside, synced, and renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import sync_folder, write_atomically

_LAST = ".last_version"
_DISK_REASONS = ("no space left", "file too large", "quota exceeded", "read-only file")


@contextmanager
def new_release(parent: Path) -> Iterator[tuple[Path, int]]:
    """A folder to write, and its number: the next one that is free in ``parent``.

    It is renamed to ``parent/NUMBER`` when the block ends, after everything in it is on
    disk, and is gone if the block fails. An existing number is never used again.

    Raises:
      ConfigError: If it cannot be written, such as on a full disk.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(parent / ".lock"):
            version = next_version(parent)
            aside = parent / f".{version}.{os.getpid()}.tmp"
            for left in parent.glob(".*.tmp"):  # by an export that was killed
                shutil.rmtree(left, ignore_errors=True)
            aside.mkdir()
            try:
                yield aside, version
                _sync(aside)
                write_atomically(parent / _LAST, f"{version}\n")
                aside.rename(parent / str(version))
                sync_folder(parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except (OSError, tf.errors.OpError) as error:
        if not (isinstance(error, OSError) or _is_of_the_disk(error)):
            raise
        raise ConfigError(
            f"{parent} cannot be written: {error}. Nothing was released; make room, or "
            "give another folder with --into."
        ) from error


def _is_of_the_disk(error: Any) -> bool:
    """Whether TensorFlow could not write: it says so in words, and by kind."""
    words = str(error).lower()
    return isinstance(error, tf.errors.ResourceExhaustedError) or any(
        reason in words for reason in _DISK_REASONS
    )


def next_version(parent: Path) -> int:
    """One more than the greatest number that a folder of ``parent`` has or had."""
    numbers = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    last = parent / _LAST
    if last.is_file():  # its folder may have been taken away since
        numbers.append(int(last.read_text("utf-8")))
    return max(numbers, default=0) + 1


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
