"""Breast cancer, Wisconsin (diagnostic), as it comes with scikit-learn.

Source: Wolberg, Mangasarian, Street and Street (1993), UCI: 569 rows, CC BY 4.0.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

from fedtrain.core.seeds import Seed
from fedtrain.data.examples import Examples
from fedtrain.data.partition import Partition, dirichlet
from fedtrain.data.sets.split import (
    DataSplit,
    held_out,
    partitioned_split,
    standardised,
)


def load(
    *,
    seed: Seed,
    partition: Partition | None = None,
    num_clients: int = 10,
    concentration: float = 1.0,
) -> DataSplit:
    """Thirty measurements of a cell nucleus; label 1 is malignant.

    Features are float32 [rows, 30], standardised with the training rows' means and
    standard deviations (the set is public); labels int32; a fifth is held out.

    Args:
      seed: Of the partition.
      partition: Another one instead of the skew.
      num_clients: Number of clients of the Dirichlet label skew.
      concentration: Of the skew; smaller is stronger.
    """
    bunch = load_breast_cancer()
    examples = Examples(features=bunch.data, labels=(1 - bunch.target).astype(np.int32))
    train, test = held_out(examples, test_fraction=0.2, name="breast_cancer")
    train, test = standardised(train, test)
    skew = dirichlet(num_clients=num_clients, concentration=concentration)
    return partitioned_split(
        train,
        test,
        partition or skew,
        seed=seed,
        name="breast_cancer",
        num_classes=2,
        label_names=("benign", "malignant"),
        feature_names=tuple(str(name) for name in bunch.feature_names),
        source="scikit-learn's breast cancer (UCI, CC BY 4.0)",
    )
