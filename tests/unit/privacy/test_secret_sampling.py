import numpy as np
import pytest

from fedtrain.client_work.batching import Poisson, PoissonEntities
from fedtrain.core import seeds
from fedtrain.data.examples import Examples
from fedtrain.privacy.secret_sampling import SecretSampling

KEY = bytes(range(32))
SEED = seeds.root(5)
NUM = 500
ROWS = Examples(
    features=np.zeros([NUM, 1], np.float32),
    labels=np.zeros(NUM, np.int32),
    entity_ids=np.arange(NUM) // 5,
)
BY_ROW = Poisson(sampling_rate=0.1, local_steps=40)
BY_ENTITY = PoissonEntities(sampling_rate=0.1, local_steps=40, max_rows_per_entity=3)


def indices(batching, key=KEY, seed=SEED):
    return SecretSampling(batching=batching, key=key).indices(ROWS, seed)


@pytest.mark.parametrize("batching", [BY_ROW, BY_ENTITY], ids=["rows", "entities"])
def test_key_and_seed_decide_the_batches(batching):
    np.testing.assert_array_equal(indices(batching), indices(batching))
    for other in (
        indices(batching, key=bytes(32)),
        indices(batching, seed=seeds.root(6)),
        batching.indices(ROWS, SEED),
    ):
        assert not np.array_equal(indices(batching), other)


def test_rows_are_taken_at_the_rate_and_at_most_once_in_a_step():
    table = indices(BY_ROW)
    taken = table[table >= 0]
    # 20,000 draws: 4.8 standard deviations, a false alarm once in 600,000 keys.
    assert abs(len(taken) - 2000) < 4.8 * np.sqrt(20_000 * 0.1 * 0.9)
    assert all(len(set(row[row >= 0])) == np.sum(row >= 0) for row in table)
    assert set(taken) <= set(range(NUM))


def test_entities_are_taken_whole_up_to_their_bound():
    places = indices(BY_ENTITY)
    places = places.reshape([40, -1, 3])
    real = places[places[..., 0] >= 0]
    # 4,000 draws: 4.8 standard deviations, a false alarm once in 600,000 keys.
    assert abs(len(real) - 400) < 4.8 * np.sqrt(4000 * 0.1 * 0.9)
    assert all(len(set(rows // 5)) == 1 and len(set(rows)) == 3 for rows in real)


def test_a_rate_of_one_takes_every_row():
    everything = Poisson(sampling_rate=1.0, local_steps=2)
    np.testing.assert_array_equal(indices(everything), [np.arange(NUM)] * 2)


def test_the_key_is_not_shown():
    assert str(KEY) not in repr(SecretSampling(batching=BY_ROW, key=KEY))
