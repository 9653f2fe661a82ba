"""Noised sums of whole numbers: bounded by unit, charged before rows are read."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from fedtrain.core.errors import BudgetExhaustedError
from fedtrain.core.keystream import KeyStream
from fedtrain.privacy import accounting, events
from fedtrain.privacy import paid_counts as paid
from fedtrain.privacy.account import Account, noise_multiplier_for
from fedtrain.privacy.ledger import Ledger
from fedtrain.privacy.paid_counts import CountsQuery, UnitRows, paid_counts

KEY = hashlib.sha256(b"seed of these tests").digest()


def account(folder, **changes):
    values = {
        "run_id": "run-1",
        "unit": "example",
        "trust": "central",
        "neighboring_relation": "add_or_remove_one",
        "delta": 1e-5,
        "budget": 1.0,
        "max_clients_per_entity": 1,
        "ledgers": (Ledger(folder / "ledger.jsonl"),),
    }
    return Account(**(values | changes))


def query(**changes):
    values = {"squared_norm": 1, "rows_per_unit": 1, "noise_multiplier": 8.0}
    return CountsQuery(name="counts", **(values | changes))


def rows(vectors, *, units=None, parties=None, num_parties=1):
    given = np.asarray(vectors)
    return UnitRows(
        [given],
        None if units is None else np.asarray(units),
        np.zeros(len(given), int) if parties is None else np.asarray(parties),
        num_parties,
    )


@pytest.fixture
def exact(tmp_path, monkeypatch):
    """Gives the sums that are noised, without their noise."""

    def sums(given, **changes):
        asked = query(**changes.pop("query", {}))
        who = account(tmp_path, budget=None, **changes)
        with monkeypatch.context() as patch:
            patch.setattr(paid, "_noise", lambda v, num, s: np.zeros(num, np.int64))
            found = paid_counts(asked, lambda: given, account=who)
        return (found.sums - 0.5 * given.num_parties).tolist()

    return sums


def test_rows_are_read_after_the_charge_is_on_disk(tmp_path):
    who = account(tmp_path)
    seen = []

    def read():
        seen.append(len((tmp_path / "ledger.jsonl").read_text().splitlines()))
        return rows([[1], [1]])

    paid_counts(query(), read, account=who)
    assert seen == [1]
    paid = accounting.epsilon(events.gaussian(8.0), 1e-5, "add_or_remove_one")
    assert who.spent() == pytest.approx(paid)


def test_every_query_is_charged_anew_as_its_noise_is_new(tmp_path):
    who = account(tmp_path)
    found = [paid_counts(query(), lambda: rows([[1]]), account=who) for _ in range(3)]
    twice = events.times(events.gaussian(8.0), 3)
    assert who.spent() == pytest.approx(
        accounting.epsilon(twice, 1e-5, "add_or_remove_one")
    )
    # Three draws of sd 8 are the same whole number with chance below 1 in 400.
    assert len({float(f.sums[0]) for f in found}) > 1


def test_nothing_is_read_beyond_the_budget_of_any_ledger(tmp_path):
    full = Ledger(tmp_path / "other.jsonl")
    account(tmp_path, ledgers=(full,), budget=None).charge("before", 2.0)
    own = Ledger(tmp_path / "own.jsonl")
    both = account(tmp_path, ledgers=(own, full))
    with pytest.raises(BudgetExhaustedError, match="No row was looked at"):
        paid_counts(query(), pytest.fail, account=both)
    assert own.head()["length"] == 0


def test_each_ledger_is_charged(tmp_path):
    ledgers = tuple(Ledger(tmp_path / f"{name}.jsonl") for name in "ab")
    account(tmp_path, ledgers=ledgers).charge("scores", 8.0)
    assert [ledger.head()["length"] for ledger in ledgers] == [1, 1]


def test_first_rows_of_a_unit_count_and_no_more(exact):
    given = rows(np.eye(5, dtype=int), units=[7, 7, 3, 7, 3])
    two = {"rows_per_unit": 2}
    assert exact(given, unit="entity", query=two) == [1, 1, 1, 0, 1]


def test_a_unit_counts_at_its_first_parties_alone(exact):
    given = rows(
        np.eye(4, dtype=int), units=[1, 1, 1, 2], parties=[0, 1, 2, 2], num_parties=3
    )
    found = exact(given, unit="entity", trust="local", max_clients_per_entity=2)
    assert found == [1, 1, 0, 1]


def test_too_long_a_vector_counts_as_zero(exact):
    given = rows([[1, 1], [2, 0], [0, 1]])
    assert exact(given, query={"squared_norm": 2}) == [1, 2]


@pytest.mark.parametrize("unit", ["example", "entity", "client"])
def test_one_unit_moves_the_sums_by_no_more_than_the_sensitivity(exact, unit):
    random = np.random.default_rng(3)
    vectors = random.integers(-2, 3, size=(60, 4))
    units = None if unit == "example" else random.integers(9, size=60)
    asked = {"squared_norm": 8, "rows_per_unit": 1 if unit == "example" else 3}
    whole = np.array(exact(rows(vectors, units=units), unit=unit, query=asked))
    bound = query(**asked).sensitivity
    for one in range(60) if units is None else np.unique(units):
        kept = np.arange(60) != one if units is None else units != one
        left = rows(vectors[kept], units=None if units is None else units[kept])
        without = np.array(exact(left, unit=unit, query=asked))
        assert np.linalg.norm(whole - without) <= bound


@pytest.mark.parametrize("num_parties", [1, 4])
def test_noise_has_the_distribution_that_is_charged(tmp_path, num_parties):
    # Seeded; a Kolmogorov-Smirnov test at 1e-6 would alarm falsely once in a million.
    sums = np.zeros((1, 4000), int)
    given = rows(sums, num_parties=num_parties)
    who = account(tmp_path, trust="local", budget=None)
    asked = query(squared_norm=9, noise_multiplier=50.0)
    found = paid_counts(asked, lambda: given, account=who, source=KeyStream(KEY))
    assert found.stddev == pytest.approx(50.0 * 3.0 * num_parties**0.5)
    spread = stats.kstest(found.sums / found.stddev, "norm")
    assert spread.pvalue > 1e-6
    assert np.all(found.sums * 2 == np.round(found.sums * 2))


def test_an_entity_pays_at_each_of_its_clients(tmp_path):
    who = account(tmp_path, unit="entity", trust="local", max_clients_per_entity=3)
    thrice = events.times(events.gaussian(8.0), 3)
    assert who.epsilon(8.0) == pytest.approx(
        accounting.epsilon(thrice, 1e-5, "add_or_remove_one")
    )


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_noise_for_an_epsilon_just_keeps_it(relation):
    noise = noise_multiplier_for(0.5, delta=1e-6, neighboring_relation=relation)
    spent = accounting.epsilon(events.gaussian(noise), 1e-6, relation)
    assert 0.499 < spent <= 0.5


@pytest.mark.parametrize("number", [2**32, -(2**63), 2**31, -(2**32)])
def test_numbers_whose_squares_wrap_are_out_of_bounds(exact, number):
    assert exact(rows([[number, 0], [1, 0]])) == [1, 0]
