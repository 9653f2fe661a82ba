"""Handwritten digits, 8 x 8 grey values, as they come with scikit-learn.

Source: Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI, test
part: 1,797 rows, CC BY 4.0.
"""

import numpy as np
from sklearn.datasets import load_digits

from fedtrain.core.seeds import Seed
from fedtrain.data.examples import Examples
from fedtrain.data.partition import Partition, dirichlet
from fedtrain.data.sets.split import DataSplit, held_out, partitioned_split


def load(
    *,
    seed: Seed,
    partition: Partition | None = None,
    num_clients: int = 20,
    concentration: float = 0.5,
) -> DataSplit:
    """Digits over clients with a Dirichlet label skew.

    Features are float32 [rows, 64] in [0, 1]; labels int32; a fifth is held out.

    Args:
      seed: Of the partition.
      partition: Another one instead of the skew.
      num_clients: Number of clients of the skew.
      concentration: Of the skew; smaller is stronger.
    """
    pixels, labels = load_digits(return_X_y=True)
    examples = Examples(
        features=(pixels / 16.0).astype(np.float32), labels=labels.astype(np.int32)
    )
    train, test = held_out(examples, test_fraction=0.2, name="digits")
    skew = dirichlet(num_clients=num_clients, concentration=concentration)
    return partitioned_split(
        train,
        test,
        partition or skew,
        seed=seed,
        name="digits",
        num_classes=10,
        label_names=tuple("0123456789"),
        source="scikit-learn's digits (UCI optical digits, CC BY 4.0)",
        info={"image_shape": (8, 8)},
    )
