"""Checkpoints that survive a crash at any moment.

One file holds one round (see ``checkpoint_file``). It is written beside, synced, and
renamed; the two newest are kept. A file that does not match its hash is passed over for
the one before it.
"""

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.core import validate
from fedtrain.core.errors import CheckpointError
from fedtrain.core.files import written_atomically
from fedtrain.rounds.checkpoint_file import (
    arrays_in,
    generations,
    intact_header,
    write,
)
from fedtrain.rounds.early_stop import Best
from fedtrain.rounds.round import ServerState

_FORMAT = 1
_log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """All that a run needs to go on.

    Attributes:
      round_number: How many rounds are done.
      state: The server's state after them.
      client_states: What clients keep between rounds, by client id.
      ledger_head: The privacy ledger's length and hash at that time, or None.
      execution: How the runtime ran the rounds, so that those to come repeat it.
      best: The best round so far, with its weights; None where no score is watched.
    """

    round_number: int
    state: ServerState
    client_states: Mapping[str, Any]
    ledger_head: Mapping[str, Any] | None
    execution: Mapping[str, Any] | None = None
    best: Best | None = None


class CheckpointStore:
    """The checkpoints of one run, in a folder of their own.

    Args:
      directory: Made when the first checkpoint is saved.
      every: Save after every this many rounds (and after the last).
      keep: How many generations stay.
    """

    def __init__(self, directory: Path, *, every: int = 1, keep: int = 2) -> None:
        validate.positive_integer(every=every, keep=keep)
        self.directory = Path(directory)
        self.every = every
        self.keep = keep

    def is_due(self, round_number: int, num_rounds: int) -> bool:
        """Whether a checkpoint belongs after ``round_number`` rounds."""
        return round_number % self.every == 0 or round_number == num_rounds

    def save(self, checkpoint: Checkpoint) -> Path:
        """Writes ``checkpoint`` durably and drops generations beyond ``keep``."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"round-{checkpoint.round_number:08d}.ckpt"
        with written_atomically(path) as file:
            _write(file, checkpoint)
        for old in generations(self.directory)[self.keep :]:
            old.unlink()
        return path

    def latest(self, like: ServerState) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None if none was ever saved.

        Raises:
          CheckpointError: If there are checkpoints, but each is damaged, or they belong
            to another model than ``like``.
        """
        paths = generations(self.directory)
        for path in paths:
            with path.open("rb") as file:
                header = intact_header(file)
                if header is not None:
                    return _from_file(str(path), file, header, like=like)
            _log.warning(
                "checkpoint %s is damaged; falling back one generation", path.name
            )
        if paths:
            raise CheckpointError(
                f"Every checkpoint in {self.directory} is damaged. Start the run anew, "
                "or restore the folder from a backup; the privacy spent stays spent."
            )
        return None


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """What ``save`` writes."""
    content = io.BytesIO()
    _write(content, checkpoint)
    return content.getvalue()


def from_bytes(content: bytes, like: ServerState, *, name: str) -> Checkpoint:
    """The checkpoint that ``to_bytes`` gave; ``name`` is what messages call it.

    Raises:
      CheckpointError: If it is damaged or belongs to another model than ``like``.
    """
    file = io.BytesIO(content)
    header = intact_header(file)
    if header is None:
        raise CheckpointError(f"{name} is damaged: it does not match its own hash.")
    return _from_file(name, file, header, like=like)


def _write(file: BinaryIO, checkpoint: Checkpoint) -> None:
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(checkpoint.state)]
    client_ids, client_arrays = _stacked_clients(checkpoint.client_states)
    best = checkpoint.best
    best_leaves = tf.nest.flatten(best.weights) if best else []
    header = {
        "format": _FORMAT,
        "round_number": checkpoint.round_number,
        "leaves": [_spec(leaf) for leaf in leaves],
        "client_ids": client_ids,
        "ledger_head": checkpoint.ledger_head,
        "execution": checkpoint.execution,
        "best": best.as_dict() if best else None,
    }
    arrays = {
        **{f"state_{i}": leaf for i, leaf in enumerate(leaves)},
        **{f"client_{i}": array for i, array in enumerate(client_arrays)},
        **{f"best_{i}": np.asarray(leaf) for i, leaf in enumerate(best_leaves)},
    }
    write(file, header, arrays)


def _stacked_clients(states: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    rows = [tf.nest.flatten(state) for state in states.values()]
    if not rows or not rows[0]:
        return [], []
    columns = zip(*rows, strict=True)
    return list(states), [np.stack([np.asarray(x) for x in col]) for col in columns]


def _from_file(
    name: str, file: BinaryIO, header: Mapping[str, Any], *, like: ServerState
) -> Checkpoint:
    expected = [_spec(leaf) for leaf in tf.nest.flatten(like)]
    if header["leaves"] != expected:
        raise CheckpointError(
            f"{name} holds another model or optimizer: its arrays are "
            f"{_brief(header['leaves'])}, this run needs {_brief(expected)}. Resume "
            "with the project file of the run that wrote it."
        )
    with arrays_in(file) as arrays:
        leaves = [tf.constant(arrays[f"state_{i}"]) for i in range(len(expected))]
        return Checkpoint(
            round_number=header["round_number"],
            state=tf.nest.pack_sequence_as(like, leaves),
            client_states=_client_leaves(header["client_ids"], arrays),
            ledger_head=header["ledger_head"],
            execution=header.get("execution"),
            best=_best(header.get("best"), arrays, like),
        )


def _best(
    facts: Mapping[str, Any] | None, arrays: Mapping[str, Any], like: ServerState
) -> Best | None:
    if facts is None:
        return None
    num_leaves = len(tf.nest.flatten(like.weights))
    leaves = [arrays[f"best_{i}"] for i in range(num_leaves)]
    return Best(**facts, weights=packed_like(leaves, like.weights))


def _client_leaves(client_ids: list[str], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Flat leaves by client id; ``packed_like`` gives them their structure again."""
    num_leaves = sum(name.startswith("client_") for name in arrays)
    columns = [arrays[f"client_{i}"] for i in range(num_leaves)]
    return {
        client_id: [column[row] for column in columns]
        for row, client_id in enumerate(client_ids)
    }


def packed_like(leaves: Any, like: Any) -> Any:
    """Restored flat leaves of one client in the structure of ``like``."""
    tensors = [tf.convert_to_tensor(leaf) for leaf in leaves]
    return tf.nest.pack_sequence_as(like, tensors)


def _spec(leaf: Any) -> list[Any]:
    return [list(leaf.shape), tf.as_dtype(leaf.dtype).name]


def _brief(specs: list[Any]) -> str:
    shown = [f"{dtype}{shape}" for shape, dtype in specs[:6]]
    return ", ".join(shown) + (", ..." if len(specs) > len(shown) else "")
