import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fedtrain.core.errors import ConfigError, DataError
from fedtrain.data import partition, sets


def test_digits_are_skewed_over_twenty_clients():
    split = sets.load("digits", seed=0)
    assert split.train.num_clients == 20
    assert split.train.sensitivity == "public"
    assert split.train.examples.features.dtype == np.float32
    assert split.train.examples.features.max() == 1.0
    assert split.train.num_examples().sum() + split.test.num_examples == 1797
    assert split.test_clients.num_examples().sum() == split.test.num_examples


def test_another_seed_moves_clients_but_not_the_test_rows():
    first, second = (sets.load("digits", seed=seed) for seed in (0, 1))
    assert np.array_equal(first.test.features, second.test.features)
    assert not np.array_equal(first.train.offsets, second.train.offsets)


def test_breast_cancer_is_standardised_and_takes_a_partition():
    split = sets.load("breast_cancer", seed=0, partition=partition.iid(num_clients=3))
    assert split.train.num_clients == 3
    assert np.allclose(split.train.examples.features.mean(0), 0, atol=1e-5)
    assert len(split.feature_names) == split.feature_shape[0] == 30


def test_unknown_names_and_options_list_what_there_is():
    with pytest.raises(ConfigError, match="'digits'"):
        sets.load("digit", seed=0)
    with pytest.raises(ConfigError, match=r"clients.*concentration, num_clients"):
        sets.load("digits", seed=0, clients=3)


def test_mnist_by_writer(data_dir):
    split = sets.load("mnist", seed=0)
    sizes = split.train.num_examples()
    assert (split.train.num_clients, sizes.min(), sizes.max()) == (539, 19, 131)
    assert split.test_clients.num_clients == 297
    assert not set(split.train.client_ids) & set(split.test_clients.client_ids)
    assert split.feature_shape == (28, 28, 1)


def test_shakespeare_by_role(data_dir):
    split = sets.load("shakespeare", seed=0)
    assert split.train.num_clients == 715
    assert split.num_classes == len(split.label_names) == 90
    first = split.train.client(0)
    assert first.features[0, 0] == 88  # begins
    assert np.array_equal(first.features[0, 1:], first.labels[0, :-1])
    text = "".join(split.label_names[i] for i in first.labels[0])
    assert text.startswith("Yonder comes my master, your brother.<eos><pad>")


def test_credit_by_party_and_by_column(data_dir):
    parties = sets.load("credit_default", seed=0)
    assert list(parties.train.client_ids) == ["guest", "host_1", "host_2"]
    assert parties.train.num_examples().tolist() == [8000] * 3
    assert parties.test.num_examples == 6000
    bands = sets.load("credit_default", seed=0, clients="AGE", num_bands=5)
    ages = [bands.train.client(i).features[:, 4] for i in range(5)]
    assert all(
        younger.max() < older.min() for younger, older in itertools.pairwise(ages)
    )


def test_heart_disease_is_flambys(data_dir):
    split = sets.load("heart_disease", seed=0)
    assert split.train.num_examples().tolist() == [199, 172, 30, 85]
    assert split.test_clients.num_examples().tolist() == [104, 89, 16, 45]
    assert split.feature_shape == (13,)
    means = [split.train.client(i).features.mean(0) for i in range(4)]
    assert np.allclose(means, 0, atol=1e-5)


def test_adult_keeps_unknown_values_as_a_category(data_dir):
    split = sets.load("adult", seed=0)
    assert split.train.num_examples().sum() == 32561
    assert split.test.num_examples == 16281
    assert abs(split.train.examples.labels.mean() - 0.2408) < 1e-4
    assert "?" in split.train.client_ids


def test_absent_files_say_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.delenv("FEDTRAIN_DATA_DIR", raising=False)
    with pytest.raises(DataError, match=r"FEDTRAIN_DATA_DIR is not set.*https://"):
        sets.load("adult", seed=0)
    monkeypatch.setenv("FEDTRAIN_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"adult\.data\.gz is not there.*https://"):
        sets.load("adult", seed=0)


def test_heart_disease_pooled_gives_flambys_accuracy(data_dir):
    split = sets.load("heart_disease", seed=0, normalisation="pooled")
    train = split.train.examples
    model = LogisticRegression(max_iter=1000).fit(train.features, train.labels)
    published, spread = 0.795, 0.003  # FLamby's pooled training, five seeds
    accuracy = model.score(split.test.features, split.test.labels)
    assert abs(accuracy - published) < 2 * spread
