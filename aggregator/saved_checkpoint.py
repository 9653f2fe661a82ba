"""What a checkpoint's file says of itself, without TensorFlow and in little memory."""

import hashlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fedtrain.core.errors import CheckpointError
from fedtrain.project.run_folder import RunFolder
from fedtrain.rounds.checkpoint_file import arrays_in, generations, intact_header


class SavedCheckpoint(NamedTuple):
    """What a checkpoint's file says of itself, once its hash was checked.

    Attributes:
      rounds_done: How many rounds are in it.
      state_sha256: Of its arrays, as the journal notes it.
    """

    rounds_done: int
    state_sha256: str


def read_checkpoint(path: Path) -> SavedCheckpoint:
    """A checkpoint's own words, checked by the hash in its header.

    Raises:
      CheckpointError: If it is not what was written.
    """
    with path.open("rb") as file:
        header = intact_header(file)
        if header is None:
            raise CheckpointError(f"{path} is damaged: it does not match its own hash.")
        return SavedCheckpoint(header["round_number"], _state_sha256(file))


def newest_intact(folder: RunFolder) -> SavedCheckpoint | None:
    """The newest checkpoint of a run that is not damaged; None if none was ever saved.

    Raises:
      CheckpointError: If there are checkpoints, but each is damaged.
    """
    found = generations(folder.checkpoints)
    for path in found:
        try:
            return read_checkpoint(path)
        except CheckpointError:
            continue
    if found:
        raise CheckpointError(
            f"Every checkpoint in {folder.checkpoints} is damaged, so the run is not "
            "noted as finished. Restore the folder from a backup, then start again."
        )
    return None


def _state_sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    with arrays_in(file) as arrays:
        names = [name for name in arrays.files if name.startswith("state_")]
        for index in range(len(names)):
            digest.update(np.ascontiguousarray(arrays[f"state_{index}"]).data)
    return digest.hexdigest()
