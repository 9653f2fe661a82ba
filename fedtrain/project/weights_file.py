"""Weights in a file: numpy's npz, an array for each leaf, named by its path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fedtrain.core.errors import CheckpointError
from fedtrain.core.files import written_atomically

Arrays = dict[str, npt.NDArray[Any]]


def save_weights(path: Path, weights: Any) -> None:
    """Writes a nest of tensors, whole or not at all."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(weights)]
    with written_atomically(path) as file:
        np.savez(file, **dict(zip(leaf_names(weights), leaves, strict=True)))


def load_arrays(path: Path) -> Arrays:
    """The arrays by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def weights_like(arrays: Arrays, like: Any) -> Any:
    """``arrays`` in the structure of ``like``.

    Raises:
      CheckpointError: If names or shapes differ: the file is another model's.
    """
    names = leaf_names(like)
    expected = dict(zip(names, map(_shape, tf.nest.flatten(like)), strict=True))
    found = {name: _shape(array) for name, array in arrays.items()}
    if expected != found:
        different = sorted(set(expected.items()) ^ set(found.items()))[:4]
        raise CheckpointError(
            f"The saved weights belong to another model: they differ in {different}."
        )
    return tf.nest.pack_sequence_as(like, [tf.constant(arrays[n]) for n in names])


def leaf_names(nest: Any, path: str = "") -> list[str]:
    """A name for each leaf, such as ``trainable/0/kernel``, in ``tf.nest``'s order."""
    if hasattr(nest, "_asdict"):
        items = list(nest._asdict().items())
    elif isinstance(nest, Mapping):
        items = sorted(nest.items())
    elif isinstance(nest, list | tuple):
        items = list(enumerate(nest))
    else:
        return [path]
    below = [leaf_names(item, f"{path}/{key}".lstrip("/")) for key, item in items]
    return [name for names in below for name in names]


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape)
