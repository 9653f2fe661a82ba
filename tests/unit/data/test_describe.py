import numpy as np
import pytest

from fedtrain.core.errors import DataError
from fedtrain.data.dataset import from_clients
from fedtrain.data.dataset_check import check_dataset
from fedtrain.data.describe import describe, label_counts
from fedtrain.data.examples import Examples


def rows(labels):
    labels = np.array(labels, np.int32)
    return Examples(features=np.zeros([len(labels), 2], np.float32), labels=labels)


def dataset(**clients):
    return from_clients({name: rows(labels) for name, labels in clients.items()})


def test_sizes_labels_and_skew():
    found = describe(dataset(a=[0, 0], b=[1, 1, 1, 1], none=[], c=[0, 0]))
    assert (found.num_clients, found.empty_clients, found.num_examples) == (4, 1, 8)
    assert found.label_counts == (4, 4)
    assert found.label_skew == 0.5
    assert found.labels_per_client == 1
    assert found.rows_per_client["max"] == 4
    assert ("clients", "4 (1 empty)") in found.summary()


def test_alike_clients_have_no_skew():
    assert describe(dataset(a=[0, 1], b=[1, 0, 0, 1])).label_skew == 0


def test_counts_for_plots():
    assert label_counts(dataset(a=[0, 2], b=[1], c=[2]), [0, 2]).tolist() == [
        *([1, 0, 1], [0, 0, 1])
    ]


def test_numbers_to_predict_have_no_label_counts():
    data = from_clients({"a": Examples(features=np.zeros([2, 1]), labels=np.ones(2))})
    assert describe(data).label_skew is None
    with pytest.raises(DataError, match="whole numbers"):
        label_counts(data)


def test_nan_names_client_row_and_column():
    data = dataset(a=[0, 1], b=[1, 0])
    data.examples.features[3, 1] = np.nan
    with pytest.raises(
        DataError, match=r"client 'b', row 1 .*features\[1\]: nan is not"
    ):
        check_dataset(data)
    data.info["feature_names"] = ("age", "income")
    with pytest.raises(DataError, match="column 'income'"):
        check_dataset(data)


def test_labels_out_of_range_name_client_and_value():
    data = dataset(a=[0, 1], none=[], b=[1, 7])
    with pytest.raises(DataError, match=r"client 'b', row 1 .*labels: 7 is outside"):
        check_dataset(data, num_classes=2)
    assert check_dataset(data, num_classes=8) == 1
