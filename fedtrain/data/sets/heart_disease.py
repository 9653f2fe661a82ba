"""Heart disease in four hospitals, prepared as FLamby's Fed-Heart-Disease.

Source: Janosi, Steinbrunn, Pfisterer and Detrano (1988), UCI, CC BY 4.0; preparation:
Ogier du Terrail et al. (2022), FLamby, https://arxiv.org/abs/2210.04620.
"""

from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from fedtrain.core import validate
from fedtrain.core.seeds import Seed
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Array, Examples, concatenate
from fedtrain.data.partition import Partition
from fedtrain.data.sets.files import data_file
from fedtrain.data.sets.split import DataSplit, natural_split, partitioned_split

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_ORIGIN = "https://archive.ics.uci.edu/dataset/45/heart+disease"
_NAMES = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang"),
    *("oldpeak", "slope", "ca", "thal", "num"),
)
_MOSTLY_MISSING = ["slope", "ca", "thal"]
_CATEGORIES = {"cp": (2, 3, 4), "restecg": (1, 2)}  # without the first: 1 and 0
_NUMERIC = [
    name
    for name in _NAMES[:-1]
    if name not in _MOSTLY_MISSING and name not in _CATEGORIES
]
FEATURES = (
    *_NUMERIC,
    *(f"{name}_{value}" for name, values in _CATEGORIES.items() for value in values),
)


def load(
    *,
    seed: Seed,
    partition: Partition | None = None,
    normalisation: Literal["hospital", "pooled"] = "hospital",
) -> DataSplit:
    """Heart disease: 13 features, label 1 is any disease, 740 usable rows.

    Features are float32 [rows, 13]; labels int32. FLamby's fixed split: 66 % of each
    hospital trains, the rest are its test rows.

    Args:
      seed: Of the partition.
      partition: Divides the pooled training rows instead of taking hospitals.
      normalisation: With the mean and standard deviation of the training rows of each
        hospital, or of all of them. FLamby trains on the first, and its pooled test
        rows are normalised with the second.
    """
    validate.one_of(("hospital", "pooled"), normalisation=normalisation)
    parts = {hospital: _split(hospital) for hospital in HOSPITALS}
    pooled = concatenate([train for train, _ in parts.values()])
    train, test = {}, {}
    for hospital, (train_rows, test_rows) in parts.items():
        basis = train_rows if normalisation == "hospital" else pooled
        train[hospital] = _normalised(train_rows, basis.features)
        test[hospital] = _normalised(test_rows, basis.features)
    return _data_split(train, test, seed, partition)


def _data_split(
    train: dict[str, Examples],
    test: dict[str, Examples],
    seed: Seed,
    partition: Partition | None,
) -> DataSplit:
    clients = from_clients(train, sensitivity="public", name="heart_disease")
    test_clients = from_clients(test, sensitivity="public", name="heart_disease_test")
    facts: dict[str, Any] = {
        "name": "heart_disease",
        "num_classes": 2,
        "label_names": ("healthy", "disease"),
        "feature_names": FEATURES,
        "source": "UCI heart disease (CC BY 4.0), prepared as in FLamby",
    }
    if partition is None:
        return natural_split(clients, test_clients.examples, test_clients, **facts)
    return partitioned_split(
        clients.examples, test_clients.examples, partition, seed=seed, **facts
    )


def _split(hospital: str) -> tuple[Examples, Examples]:
    examples = _rows(hospital)
    counts = np.bincount(examples.labels, minlength=2)
    train, test = train_test_split(
        np.arange(examples.num_examples),
        test_size=0.34,
        train_size=0.66,
        random_state=43,
        stratify=examples.labels if counts.min() > 2 else None,
    )
    # Rows stay in the file's order, as in FLamby.
    return examples.take(np.sort(train)), examples.take(np.sort(test))


def _rows(hospital: str) -> Examples:
    path = data_file(f"heart_disease/processed.{hospital}.data", origin=_ORIGIN)
    table = pd.read_csv(path, header=None, names=list(_NAMES), na_values="?")
    table = table.drop(columns=_MOSTLY_MISSING).dropna()
    one_hot = [
        table[name] == value for name, values in _CATEGORIES.items() for value in values
    ]
    columns = [*(table[name] for name in _NUMERIC), *one_hot]
    return Examples(
        features=np.stack([column.to_numpy(np.float64) for column in columns], axis=1),
        labels=(table["num"] > 0).to_numpy(np.int32),
    )


def _normalised(examples: Examples, basis: Array) -> Examples:
    mean, stddev = basis.mean(axis=0), basis.std(axis=0, ddof=1)
    scaled = (examples.features - mean) / (stddev + 1e-9)
    return Examples(features=scaled.astype(np.float32), labels=examples.labels)
