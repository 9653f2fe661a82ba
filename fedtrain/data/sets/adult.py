"""Census income (1994): does a person earn more than 50,000 dollars a year?

Source: Becker and Kohavi (1996), UCI, CC BY 4.0.
"""

from typing import Any

import numpy as np
import pandas as pd

from fedtrain.core import validate
from fedtrain.core.seeds import Seed
from fedtrain.data.examples import Array, Examples
from fedtrain.data.partition import Partition
from fedtrain.data.sets.files import data_file
from fedtrain.data.sets.split import (
    DataSplit,
    by_ids,
    natural_split,
    partitioned_split,
)

NUMERIC = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
CATEGORICAL = (
    *("workclass", "marital-status", "occupation", "relationship", "race", "sex"),
    "native-country",
)
_NAMES = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status"),
    *("occupation", "relationship", "race", "sex", "capital-gain", "capital-loss"),
    *("hours-per-week", "native-country", "income"),
)
_CLIENTS = ("education", *CATEGORICAL)
_ORIGIN = "https://archive.ics.uci.edu/dataset/2/adult (gzip the two files)"


def load(
    *, seed: Seed, partition: Partition | None = None, clients: str = "occupation"
) -> DataSplit:
    """Census income: label 1 is more than 50,000 dollars (24 %).

    Features are float32 [rows, columns]: five standardised numbers and the one-hot
    codes of seven categories, in which an unknown value (``?``) is one of its own.
    UCI's own 16,281 test rows are the test rows.

    Args:
      seed: Of the partition.
      partition: Divides all training rows instead of ``clients``.
      clients: A client for each value of this column: a synthetic split.
    """
    validate.one_of(_CLIENTS, clients=clients)
    train_table, test_table = _table("adult.data.gz"), _table("adult.test.gz")
    train, test, names = _encoded(train_table, test_table)
    facts: dict[str, Any] = {
        "name": "adult",
        "num_classes": 2,
        "label_names": ("<=50K", ">50K"),
        "feature_names": names,
        "source": "UCI census income (CC BY 4.0)",
    }
    if partition is not None:
        return partitioned_split(train, test, partition, seed=seed, **facts)
    return natural_split(
        by_ids(train, train_table[clients].to_numpy(str), name="adult"),
        test,
        by_ids(test, test_table[clients].to_numpy(str), name="adult_test"),
        **facts,
    )


def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(
        data_file(f"adult/{name}", origin=_ORIGIN),
        names=list(_NAMES),
        skipinitialspace=True,
        comment="|",
    )


def _encoded(
    train: pd.DataFrame, test: pd.DataFrame
) -> tuple[Examples, Examples, tuple[str, ...]]:
    numbers = train[list(NUMERIC)].to_numpy(np.float64)
    mean, stddev = numbers.mean(axis=0), numbers.std(axis=0)
    categories = {name: np.unique(train[name].astype(str)) for name in CATEGORICAL}
    names = [f"{name}={value}" for name in CATEGORICAL for value in categories[name]]

    def encode(table: pd.DataFrame) -> Examples:
        scaled = (table[list(NUMERIC)].to_numpy(np.float64) - mean) / stddev
        codes = [_one_hot(table[name], categories[name]) for name in CATEGORICAL]
        rich = table["income"].str.startswith(">50K").to_numpy(np.int32)
        features = np.concatenate([scaled, *codes], axis=1).astype(np.float32)
        return Examples(features=features, labels=rich)

    return encode(train), encode(test), (*NUMERIC, *names)


def _one_hot(values: pd.Series, categories: Array) -> Array:
    return values.to_numpy(str)[:, np.newaxis] == categories
