from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrain.client_work.batching import (
    Epochs,
    Poisson,
    PoissonEntities,
    Steps,
    batch_tables,
)
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, DataError
from fedtrain.data.examples import Examples

SEED = seeds.root(1)


def rows(num, entity_ids=None):
    return Examples(
        features=np.zeros([num, 1]), labels=np.zeros(num), entity_ids=entity_ids
    )


@given(num=st.integers(0, 50), batch=st.integers(1, 20), epochs=st.integers(1, 3))
def test_an_epoch_takes_every_row_once(num, batch, epochs):
    table = Epochs(batch_size=batch, local_epochs=epochs).indices(rows(num), SEED)
    taken = table[table >= 0]
    np.testing.assert_array_equal(np.sort(taken), np.repeat(np.arange(num), epochs))
    assert table.shape[1] <= batch


def test_epochs_are_shuffled_differently():
    table = Epochs(batch_size=50, local_epochs=2).indices(rows(50), SEED)
    assert not np.array_equal(table[0], table[1])
    assert not np.array_equal(table[0], np.arange(50))


def test_steps_runs_through_shuffled_passes():
    table = Steps(batch_size=4, local_steps=5).indices(rows(10), SEED)
    assert table.shape == (5, 4)
    np.testing.assert_array_equal(np.sort(table.flatten()[:10]), np.arange(10))


def test_a_client_without_rows_makes_no_steps():
    assert len(Steps(batch_size=4, local_steps=5).indices(rows(0), SEED)) == 0
    assert len(Epochs(batch_size=4).indices(rows(0), SEED)) == 0


def test_poisson_makes_every_step_even_without_rows():
    table = Poisson(sampling_rate=0.5, local_steps=3).indices(rows(0), SEED)
    assert table.shape == (3, 1)
    assert (table == -1).all()


def test_poisson_takes_each_row_with_the_stated_rate():
    table = Poisson(sampling_rate=0.2, local_steps=2000).indices(rows(50), SEED)
    counts = np.bincount(table[table >= 0], minlength=50)
    # 50 binomial counts of 2000 draws, each within 5 standard deviations:
    # a right sampler fails with chance 50 * 5.7e-7 = 3e-5.
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)
    assert len(np.unique((table >= 0).sum(axis=1))) > 5


def test_entities_own_neighbouring_places_and_at_most_the_bound():
    ids = np.array([7, 7, 7, 7, 3, 5, 5])
    batching = PoissonEntities(sampling_rate=1.0, local_steps=4, max_rows_per_entity=2)
    for step in batching.indices(rows(7, ids), SEED):
        groups = step.reshape([-1, 2])
        assert len(groups) == 3
        for group in groups:
            real = group[group >= 0]
            assert len(np.unique(ids[real])) == 1
            assert len(np.unique(real)) == len(real)


def test_entity_sampling_needs_entities():
    batching = PoissonEntities(sampling_rate=1.0, local_steps=1, max_rows_per_entity=2)
    with pytest.raises(DataError, match="entity_ids"):
        batching.indices(rows(3), SEED)


@pytest.mark.parametrize("rate", [0.0, 1.1, float("nan")])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(ConfigError, match="sampling_rate"):
        Poisson(sampling_rate=rate, local_steps=1)


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9),
    batch=st.integers(1, 12),
    turns=st.integers(1, 3),
    shuffle=st.booleans(),
)
def test_many_clients_draw_what_each_draws_by_itself(sizes, batch, turns, shuffle):
    clients = [rows(size) for size in sizes]
    own_seeds = seeds.derive_for_each(SEED, "client", map(str, range(len(sizes))))
    for batching in (
        Epochs(batch_size=batch, local_epochs=turns, shuffle=shuffle),
        Epochs(batch_size=batch, local_epochs=turns, max_steps=2),
        Steps(batch_size=batch, local_steps=turns, shuffle=shuffle),
        Poisson(sampling_rate=0.4, local_steps=turns),
    ):
        tables = batch_tables(batching, clients, own_seeds)
        one_by_one = batch_tables(_Alone(batching), clients, own_seeds)
        np.testing.assert_array_equal(tables.rows, one_by_one.rows)
        np.testing.assert_array_equal(tables.num_steps, one_by_one.num_steps)


class _Alone(NamedTuple):
    """A batching that cannot draw many clients at once."""

    batching: Any

    def indices(self, examples, seed):
        return self.batching.indices(examples, seed)


def test_each_order_of_a_shuffle_is_equally_likely():
    own_seeds = seeds.derive_for_each(SEED, "client", map(str, range(12_000)))
    batching = Epochs(batch_size=4)
    tables = batch_tables(batching, [rows(4)] * 12_000, own_seeds)
    counts = np.unique(tables.rows, axis=0, return_counts=True)[1]
    # Chi-square with 23 degrees of freedom exceeds 60 with a chance of 4e-5.
    assert len(counts) == 24
    assert ((counts - 500.0) ** 2 / 500.0).sum() < 60.0
