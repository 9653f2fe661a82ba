import numpy as np
import pytest

from fedtrain.core.errors import ConfigError
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
