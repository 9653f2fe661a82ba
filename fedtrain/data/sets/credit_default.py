"""Default of credit card clients (Taiwan, 2005), whole or as FATE's three parties.

FATE's examples cut the 30,000 rows into three parties and a test set; its columns are
UCI's in another order, standardised over all rows.

Source: Yeh and Lien (2009), UCI, CC BY 4.0; the three parties: FATE (Apache-2.0).
"""

from typing import Any

import numpy as np
import pandas as pd

from fedtrain.core import validate
from fedtrain.core.seeds import Seed
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Array, Examples
from fedtrain.data.partition import Partition, natural
from fedtrain.data.sets.files import data_file
from fedtrain.data.sets.split import (
    DataSplit,
    held_out,
    natural_split,
    partitioned_split,
    standardised,
)

PARTIES = ("guest", "host_1", "host_2")
COLUMNS = (
    *("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE"),
    *("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),
    *(f"BILL_AMT{month}" for month in range(1, 7)),
    *(f"PAY_AMT{month}" for month in range(1, 7)),
)
# FATE's x0 is PAY_6, then bills, payments, the person, and PAY_0 to PAY_5.
_FATE_COLUMNS = (*COLUMNS[10:], *COLUMNS[:10])
_BANDED = ("LIMIT_BAL", "AGE")
_UCI = "https://archive.ics.uci.edu/dataset/350 (as UCI_Credit_Card.csv)"
_FATE = "https://github.com/FederatedAI/FATE, examples/data (default_credit_homo_*)"


def load(
    *,
    seed: Seed,
    partition: Partition | None = None,
    clients: str = "fate",
    num_bands: int = 4,
) -> DataSplit:
    """Credit default: 23 standardised columns; label 1 is default (22 %).

    Features are float32 [rows, 23]; labels int32.

    Args:
      seed: Of the partition.
      partition: Divides UCI's rows, of which a fifth is held out.
      clients: ``"fate"``: three parties of 8,000 rows and 6,000 test rows, near-IID. Or
        a column such as ``"EDUCATION"``: a client for each of its values (``AGE`` and
        ``LIMIT_BAL``: for each of ``num_bands`` bands): a synthetic split.
      num_bands: Bands of a numeric column.
    """
    validate.one_of(("fate", *COLUMNS), clients=clients)
    if partition is None and clients == "fate":
        return _fate_split()
    return _uci_split(seed, partition, clients, num_bands)


def _fate_split() -> DataSplit:
    parties = {party: _fate_part(party) for party in PARTIES}
    test = _fate_part("test")
    train = from_clients(parties, sensitivity="public", name="credit_default")
    source = "UCI credit default (CC BY 4.0), FATE's parties (Apache-2.0)"
    return natural_split(train, test, None, **_facts(source))


def _fate_part(part: str) -> Examples:
    name = f"default_credit/default_credit_homo_{part}.csv.gz"
    table = pd.read_csv(data_file(name, origin=_FATE))
    places = [f"x{_FATE_COLUMNS.index(column)}" for column in COLUMNS]
    return Examples(
        features=table[places].to_numpy(np.float32),
        labels=table["y"].to_numpy(np.int32),
    )


def _uci_split(
    seed: Seed, partition: Partition | None, clients: str, num_bands: int
) -> DataSplit:
    path = data_file("default_credit/UCI_Credit_Card.csv", origin=_UCI)
    table = pd.read_csv(path)
    examples = Examples(
        features=table[list(COLUMNS)].to_numpy(np.float64),
        labels=table["default.payment.next.month"].to_numpy(np.int32),
    )
    train, test = held_out(examples, test_fraction=0.2, name="credit_default")
    if partition is None:
        partition = _bands(train.features, clients, num_bands)
    train, test = standardised(train, test)
    facts = _facts("UCI credit default (CC BY 4.0)")
    return partitioned_split(train, test, partition, seed=seed, **facts)


def _bands(features: Array, column: str, num_bands: int) -> Partition:
    values = features[:, COLUMNS.index(column)].astype(np.int64)
    if column not in _BANDED:
        return natural([f"{column}={value}" for value in values])
    inner = np.quantile(values, np.linspace(0, 1, num_bands + 1)[1:-1])
    bands = np.digitize(values, np.unique(inner))
    return natural([f"{column} band {band}" for band in bands])


def _facts(source: str) -> dict[str, Any]:
    return {
        "name": "credit_default",
        "num_classes": 2,
        "label_names": ("paid", "default"),
        "feature_names": COLUMNS,
        "source": source,
    }
