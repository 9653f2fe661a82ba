import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.data.held_out import is_held_out, only

RANDOM = np.random.Generator(np.random.Philox(4))
ROWS = Examples(
    features={"x": RANDOM.normal(size=(2000, 3)).astype(np.float32)},
    labels=RANDOM.integers(0, 2, 2000),
)


@given(places=st.lists(st.integers(0, 1999), min_size=1, unique=True))
@settings(max_examples=30, deadline=None)
def test_a_row_alone_decides_whatever_the_other_rows_are(places):
    whole = is_held_out(ROWS, fraction=0.3, salt="credit")
    some = is_held_out(ROWS.take(np.array(places)), fraction=0.3, salt="credit")
    np.testing.assert_array_equal(some, whole[places])


def test_the_share_is_the_fraction_and_salts_differ():
    first = is_held_out(ROWS, fraction=0.3, salt="credit")
    # Five standard deviations: a false alarm once in a million salts.
    assert abs(first.mean() - 0.3) < 5 * np.sqrt(0.21 / 2000)
    other = is_held_out(ROWS, fraction=0.3, salt="fraud")
    assert 0.3 < (first != other).mean() < 0.55
    assert is_held_out(ROWS.slice(0, 0), fraction=0.3, salt="credit").shape == (0,)


def test_clients_keep_their_own_rows():
    parts = {"a": ROWS.slice(0, 5), "b": ROWS.slice(5, 5), "c": ROWS.slice(5, 12)}
    keep = np.arange(12) % 2 == 0
    found = only(from_clients(parts), keep)
    assert found.num_examples().tolist() == [3, 0, 3]
    np.testing.assert_array_equal(found.client(2).labels, ROWS.labels[[6, 8, 10]])
