import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import ConfigError
from fedtrain.data import partition
from fedtrain.data.examples import Examples
from fedtrain.data.readers import from_dataframe
from fedtrain.data.repartition import repartitioned

PARTITIONS = {
    "iid": lambda n: partition.iid(num_clients=n),
    "dirichlet": lambda n: partition.dirichlet(
        num_clients=n, concentration=0.5, min_rows=1
    ),
    "dirichlet_equal": lambda n: partition.dirichlet(
        num_clients=n, concentration=0.5, min_rows=1, equal_sizes=True
    ),
    "labels": lambda n: partition.labels_per_client(num_clients=n, num_labels=2),
    "quantity": lambda n: partition.quantity_skew(num_clients=n, concentration=0.5),
    "column": lambda n: partition.by_column(0, num_bands=n),
}


def rows(count: int, classes: int = 4) -> Examples:
    number = np.arange(count)
    return Examples(features=np.stack([number, number], 1), labels=number % classes)


@pytest.mark.parametrize("name", PARTITIONS)
@settings(max_examples=20, deadline=None)
@given(count=st.integers(80, 200), clients=st.integers(2, 6), seed=st.integers(0, 99))
def test_every_row_lands_exactly_once(name, count, clients, seed):
    federated = partition.partitioned(rows(count), PARTITIONS[name](clients), seed=seed)
    assert np.array_equal(np.sort(federated.examples.features[:, 0]), np.arange(count))
    assert federated.num_clients == clients == len(federated.client_ids)
    assert federated.num_examples().min() >= 1


def test_the_seed_decides_and_repeats():
    def draw(seed):
        dirichlet = partition.dirichlet(num_clients=5, concentration=0.5)
        return partition.partitioned(rows(400), dirichlet, seed=seed).examples.labels

    assert np.array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_each_client_holds_exactly_two_labels():
    federated = partition.partitioned(
        rows(400, classes=10),
        partition.labels_per_client(num_clients=7, num_labels=2),
        seed=0,
    )
    held = [len(np.unique(federated.client(i).labels)) for i in range(7)]
    assert held == [2] * 7


def test_smaller_concentration_means_more_skew():
    def largest_share(concentration):
        skew = partition.dirichlet(num_clients=4, concentration=concentration)
        federated = partition.partitioned(rows(4000), skew, seed=3)
        shares = [
            np.bincount(federated.client(i).labels, minlength=4).max()
            / federated.num_examples()[i]
            for i in range(4)
        ]
        return np.mean(shares)

    assert largest_share(100.0) < 0.35 < 0.5 < largest_share(0.1)


def test_natural_clients_keep_their_names_and_rows():
    federated = partition.partitioned(
        rows(4), partition.natural(["b", "a", "b", "a"]), seed=0
    )
    assert list(federated.client_ids) == ["a", "b"]
    assert federated.client(1).features[:, 0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partition.named("iid", clients=3), "unexpected keyword"),
        (lambda: partition.named("random"), "must be one of"),
        (lambda: partition.iid(num_clients=0), "num_clients"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_too_few_rows_or_labels_are_refused():
    with pytest.raises(ConfigError, match="3 rows cannot give 5 clients"):
        partition.partitioned(rows(3), partition.iid(num_clients=5), seed=0)
    with pytest.raises(ConfigError, match="cannot cover 4 labels"):
        partition.partitioned(
            rows(40), partition.labels_per_client(num_clients=1, num_labels=2), seed=0
        )


def test_an_encoded_file_is_divided_by_a_named_column():
    table = {
        "age": np.array([20, 30, 30, 40]),
        "job": np.array(["cook", "nurse", "cook", "judge"], object),
        "y": np.array([0, 1, 0, 1]),
    }
    dataset = from_dataframe(table, label="y", name="people")

    def clients(column, **options):
        chosen = partition.by_column(column, **options)
        divided = repartitioned(dataset, chosen, seed=0)
        assert divided.info["schema_sha256"] == dataset.info["schema_sha256"]
        return dict(zip(divided.client_ids, divided.num_examples(), strict=True))

    assert clients("age") == {"20": 1, "30": 2, "40": 1}
    assert clients("job") == {"cook": 2, "judge": 1, "nurse": 1}
    assert clients("age", num_bands=2) == {"0": 1, "1": 3}
    with pytest.raises(
        ConfigError, match="no feature 'city'; there are: age, job=cook"
    ):
        clients("city")
