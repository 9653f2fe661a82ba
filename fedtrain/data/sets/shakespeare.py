"""Shakespeare by role: predict the next character.

Tokens, padding and the length of sequences are those of Reddi et al. (2021), appendix,
which are also TFF's: 86 characters, and padding, unknown, begin and end make 90 ids.

Sources: McMahan et al. (2017), https://arxiv.org/abs/1602.05629; Caldas et al. (2018),
LEAF; Reddi et al. (2021), https://arxiv.org/abs/2003.00295.
"""

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from fedtrain.core import validate
from fedtrain.core.seeds import Seed
from fedtrain.data.dataset import FederatedDataset, from_clients
from fedtrain.data.examples import Array, Examples
from fedtrain.data.partition import Partition
from fedtrain.data.sets.files import data_file
from fedtrain.data.sets.split import DataSplit, natural_split, partitioned_split

# The order is that of TFF's text-generation models; ids are positions plus one.
CHARACTERS = (
    "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\n"
    "aeimquyAEIMQUY]!%)-159\r"
)
PADDING, UNKNOWN, BEGIN, END = (
    0,
    len(CHARACTERS) + 1,
    len(CHARACTERS) + 2,
    len(CHARACTERS) + 3,
)
VOCABULARY_SIZE = len(CHARACTERS) + 4
_ORIGIN = (
    "TFF's public data (shakespeare.tar.bz2 on "
    "https://storage.googleapis.com/tff-datasets-public/)"
)


def load(
    *, seed: Seed, partition: Partition | None = None, sequence_length: int = 80
) -> DataSplit:
    """Shakespeare: 715 roles are the clients, each with test snippets of its own.

    Features are int32 [rows, sequence_length] character ids, labels the same shifted
    by one; 0 is padding. A snippet is cut into as many rows as it needs.

    Args:
      seed: Of the partition.
      partition: Divides the pooled rows instead of taking roles; no label skew.
      sequence_length: Characters in a row.
    """
    validate.positive_integer(sequence_length=sequence_length)
    train = _roles("train", sequence_length)
    test = _roles("test", sequence_length)
    facts: dict[str, Any] = {
        "name": "shakespeare",
        "num_classes": VOCABULARY_SIZE,
        "label_names": ("<pad>", *CHARACTERS, "<oov>", "<bos>", "<eos>"),
        "task": "next_token",
        "source": "Shakespeare (public domain), prepared by TFF (Apache-2.0)",
    }
    if partition is not None:
        return partitioned_split(
            train.examples, test.examples, partition, seed=seed, **facts
        )
    return natural_split(train, test.examples, test, **facts)


def encoded(snippets: Iterable[bytes], *, sequence_length: int) -> Examples:
    """Rows of character ids from snippets of text, one byte a character."""
    width = sequence_length + 1
    rows = [_sequences(snippet, width) for snippet in snippets]
    table = np.concatenate([np.zeros([0, width], np.int32), *rows])
    return Examples(features=table[:, :-1], labels=table[:, 1:])


def _sequences(snippet: bytes, width: int) -> Array:
    ids = _IDS[np.frombuffer(snippet, np.uint8)]
    padding = np.full(-(len(ids) + 2) % width, PADDING)
    return (
        np.concatenate([[BEGIN], ids, [END], padding])
        .astype(np.int32)
        .reshape([-1, width])
    )


def _roles(part: str, sequence_length: int) -> FederatedDataset:
    path = data_file(f"shakespeare_tff/shakespeare_{part}.h5", origin=_ORIGIN)
    with h5py.File(path, "r") as file:
        roles = {
            role: encoded(group["snippets"][:], sequence_length=sequence_length)
            for role, group in file["examples"].items()
        }
    name = "shakespeare" if part == "train" else "shakespeare_test"
    return from_clients(roles, sensitivity="public", name=name)


def _id_table() -> Array:
    table = np.full(256, UNKNOWN, np.int32)
    table[np.frombuffer(CHARACTERS.encode(), np.uint8)] = np.arange(len(CHARACTERS)) + 1
    return table


_IDS = _id_table()
