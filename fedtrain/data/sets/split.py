"""A named data set as its loader returns it: training clients and held-out rows."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fedtrain.core import seeds
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples
from fedtrain.data.partition import (
    Partition,
    grouped,
    label_numbers,
    natural,
    partitioned,
)

Task = Literal["classification", "regression", "next_token"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSplit:
    """Training clients and held-out rows of one data set.

    Attributes:
      train: The training clients.
      test: Held-out rows, pooled; they do not depend on the seed.
      test_clients: Held-out rows by client, where that means something. Their ids are
        those of training clients, or new ones (MNIST by writer).
      num_classes: Labels are integers from 0 to ``num_classes - 1``; 1 for a number.
      label_names: By label; empty where the numbers say it all.
      feature_names: By column of float vectors; empty for images and text.
      task: ``"classification"``: one label a row; ``"regression"``: one number;
        ``"next_token"``: int labels [rows, time] where 0 is padding.
      source: Where the data come from, and their licence.
      info: Further facts.
    """

    train: FederatedDataset
    test: Examples
    test_clients: FederatedDataset | None = None
    num_classes: int
    label_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    task: Task = "classification"
    source: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the training set."""
        return self.train.name

    @property
    def feature_shape(self) -> Any:
        """Shape of one row's features; a dict of shapes for several inputs."""
        features = self.train.examples.features
        if isinstance(features, dict):
            return {name: array.shape[1:] for name, array in features.items()}
        return features.shape[1:]


def partitioned_split(
    train: Examples,
    test: Examples,
    partition: Partition,
    *,
    seed: seeds.Seed,
    name: str,
    **facts: Any,
) -> DataSplit:
    """A public split whose training rows are divided by ``partition``."""
    federated = partitioned(
        train,
        partition,
        seed=seeds.derive(seed, "partition"),
        sensitivity="public",
        name=name,
    )
    return DataSplit(
        train=federated,
        test=test,
        test_clients=matching_clients(federated, test, seeds.derive(seed, "test"))
        if train.labels.ndim == 1
        else None,
        **facts,
    )


def natural_split(
    train: FederatedDataset,
    test: Examples,
    test_clients: FederatedDataset | None,
    *,
    name: str,
    **facts: Any,
) -> DataSplit:
    """A split whose clients the data itself names."""
    info = {**train.info, "partition": "natural"}
    named = replace(train, name=name, info=info)
    return DataSplit(train=named, test=test, test_clients=test_clients, **facts)


def by_ids(examples: Examples, client_ids: Array, *, name: str) -> FederatedDataset:
    """A public data set from rows and the id of each row's client."""
    return partitioned(
        examples, natural(client_ids), seed=0, sensitivity="public", name=name
    )


def standardised(train: Examples, test: Examples) -> tuple[Examples, Examples]:
    """Both as float32, by the training rows' means and standard deviations."""
    mean, stddev = train.features.mean(axis=0), train.features.std(axis=0)

    def scaled(examples: Examples) -> Examples:
        features = ((examples.features - mean) / stddev).astype(np.float32)
        return replace(examples, features=features)

    return scaled(train), scaled(test)


def matching_clients(
    train: FederatedDataset, test: Examples, seed: seeds.Seed
) -> FederatedDataset:
    """Test rows by client, so that each sees the labels it trains on.

    A test row goes to a client with probability proportional to that client's training
    rows of the same label.
    """
    counts = _label_counts(train)
    shares = np.cumsum(counts / np.maximum(counts.sum(axis=0), 1), axis=0)
    draws = seeds.generator(seed).random(test.num_examples)
    labels = np.asarray(test.labels, np.int64)
    owners = (shares[:, labels] <= draws).sum(axis=0).clip(max=train.num_clients - 1)
    federated = grouped(
        test, owners, names=np.array(train.client_ids), name=f"{train.name}_test"
    )
    return replace(federated, sensitivity=train.sensitivity)


def held_out(
    examples: Examples, *, test_fraction: float, name: str
) -> tuple[Examples, Examples]:
    """Training and test rows, the same share of every label in both.

    The division depends on ``name`` alone, so every seed is tested on the same rows.
    """
    random = seeds.generator(seeds.derive(seeds.root(0), "held_out", name))
    labels = label_numbers(examples)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        is_test[rows[: round(test_fraction * len(rows))]] = True
    return examples.take(np.flatnonzero(~is_test)), examples.take(
        np.flatnonzero(is_test)
    )


def _label_counts(train: FederatedDataset) -> Any:
    labels = np.asarray(train.examples.labels, np.int64)
    clients = np.repeat(np.arange(train.num_clients), train.num_examples())
    counts = np.zeros([train.num_clients, labels.max() + 1], np.int64)
    np.add.at(counts, (clients, labels), 1)
    return counts
