import json
import math
import multiprocessing
import stat
import time

import pytest
from filelock import FileLock

from fedtrain.core import chain
from fedtrain.core.errors import LedgerError
from fedtrain.privacy import accounting, events
from fedtrain.privacy.ledger import Charge, Ledger, ledger_path
from fedtrain.privacy.ledger_repair import repair_ledger

STEP = events.gaussian(2.0)


def charge(round_number=0, **changes):
    values = {
        "run": "run-1",
        "round_number": round_number,
        "attempt": 0,
        "input_hash": "aa",
        "unit": "client",
        "counts": {STEP: 1},
        "clients": ("ada", "bob"),
    }
    return Charge(**(values | changes))


def epsilon(ledger, unit="client"):
    return ledger.spending.epsilon(
        unit, 1e-5, "add_or_remove_one", interval=accounting.QUICK
    )


def cost(num_rounds, step=STEP):
    event = events.times(step, num_rounds)
    return accounting.epsilon(event, 1e-5, "add_or_remove_one")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "ledger.jsonl"


@pytest.fixture
def three(path):
    ledger = Ledger(path)
    for number in range(3):
        ledger.charge(charge(number))
    return ledger


def damage(path, line, change):
    lines = path.read_text().splitlines()
    lines[line] = change(lines[line])
    path.write_text("".join(f"{text}\n" for text in lines if text is not None))


def test_charges_compose_for_each_client_and_the_largest_counts(path):
    ledger = Ledger(path)
    ledger.charge(charge(0, clients=("ada",)))
    ledger.charge(charge(1, clients=("ada", "bob")))
    ledger.charge(charge(2, clients=("cleo",)))
    assert epsilon(ledger) == pytest.approx(cost(2))
    ledger.charge(charge(3, clients=None))
    assert epsilon(ledger) == pytest.approx(cost(3))
    assert ledger.spending.num_by_client() == {"ada": 2, "bob": 1, "cleo": 1}


def test_what_was_written_is_read_again(path, three):
    again = Ledger(path)
    assert again.head() == three.head()
    assert epsilon(again) == epsilon(three) == pytest.approx(cost(3))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_release_is_charged_once(path, three):
    assert not three.charge(charge(1))
    assert not Ledger(path).charge(charge(1))
    assert three.head()["length"] == 3
    for other in ({"input_hash": "bb"}, {"attempt": 1}, {"run": "run-2"}):
        assert three.charge(charge(1, **other))
    assert epsilon(three) == pytest.approx(cost(6))


@pytest.mark.parametrize(
    "other",
    [
        {"counts": {STEP: 2}},
        {"counts": {events.gaussian(0.01): 1}},
        {"unit": "example"},
        {"clients": ("ada", "cleo")},
        {"clients": None},
    ],
    ids=["more often", "less noise", "unit", "other client", "every client"],
)
def test_another_cost_or_another_payer_is_another_charge(path, three, other):
    assert three.charge(charge(1, **other))
    assert not Ledger(path).charge(charge(1, **other))


def test_a_refused_charge_leaves_no_trace(path, three):
    before = path.read_bytes()

    def refuse(after):
        assert after.num_by_client() == {"ada": 4, "bob": 4}
        raise ValueError("too much")

    with pytest.raises(ValueError, match="too much"):
        three.charge(charge(3), allowed=refuse)
    assert path.read_bytes() == before
    assert three.spending.num_by_client() == {"ada": 3, "bob": 3}


def test_two_open_ledgers_see_each_others_charges(path, three):
    other = Ledger(path)
    other.charge(charge(0, run="run-2"))
    three.charge(charge(3))
    other.charge(charge(4))
    assert three.head()["length"] == 5
    assert epsilon(other) == pytest.approx(cost(6))


def charge_ten(path, run):
    ledger = Ledger(path)
    for number in range(10):
        ledger.charge(charge(number, run=run))


def test_processes_that_charge_at_once_lose_nothing(path):
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=charge_ten, args=(path, f"run-{i}")) for i in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert Ledger(path).head()["length"] == 20


def charge_without_end(path):
    ledger = Ledger(path)
    for number in range(1_000_000):
        ledger.charge(charge(number))


def test_a_killed_process_leaves_a_ledger_that_can_be_read(path):
    process = multiprocessing.get_context("spawn").Process(
        target=charge_without_end, args=(path,)
    )
    process.start()
    deadline = time.monotonic() + 120.0
    while not (path.exists() and path.stat().st_size > 20_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join(30)
    ledger = Ledger(path)
    before = ledger.head()["length"]
    assert before > 10
    ledger.charge(charge(0, run="next"))
    assert Ledger(path).head()["length"] == before + 1


def test_a_clients_charge_does_not_cover_an_entity_that_may_span_clients(path):
    ledger = Ledger(path)
    ledger.charge(charge(0, unit="entity"))
    assert epsilon(ledger, "entity") == pytest.approx(cost(1))
    ledger.charge(charge(1, unit="client"))
    assert epsilon(ledger, "example") == pytest.approx(cost(2))
    assert epsilon(ledger, "entity") == math.inf
    assert epsilon(ledger, "client") == math.inf


def test_units_of_different_size_do_not_mix(path):
    ledger = Ledger(path)
    ledger.charge(charge(0, unit="client"))
    assert epsilon(ledger, "example") == pytest.approx(cost(1))
    ledger.charge(charge(1, unit="example"))
    assert epsilon(ledger, "example") == pytest.approx(cost(2))
    assert epsilon(ledger, "client") == math.inf


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace('"round":1', '"round":7'),
        lambda line: line.replace("ada", "eve"),
        lambda line: line[:-5],
        lambda line: None,
        lambda line: "",
    ],
    ids=["altered", "other client", "cut", "missing", "blank"],
)
def test_a_damaged_entry_is_noticed(path, three, change):
    damage(path, 1, change)
    with pytest.raises(LedgerError, match="fedtrain ledger repair"):
        Ledger(path)


def test_a_torn_last_entry_is_noticed(path, three):
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LedgerError, match="incomplete"):
        Ledger(path)


def test_a_shortened_ledger_is_noticed_by_what_a_checkpoint_remembers(path, three):
    head = three.head()
    Ledger(path).expect(head)
    damage(path, 2, lambda line: None)
    shortened = Ledger(path)
    with pytest.raises(LedgerError, match=r"2 entries.*remembers 3"):
        shortened.expect(head)
    shortened.charge(charge(9))
    with pytest.raises(LedgerError, match="replaced"):
        shortened.expect(head)
    path.write_text("")
    with pytest.raises(LedgerError, match="become shorter"):
        shortened.charge(charge(10))


def test_repair_charges_the_worst_case_for_what_is_missing(path):
    ledger = Ledger(path)
    dear = events.gaussian(1.0)
    for number, step in enumerate([STEP, STEP, dear, STEP]):
        ledger.charge(charge(number, counts={step: 1}))
    head = ledger.head()
    damage(path, 1, lambda line: line.replace("ada", "eve"))
    result = repair_ledger(path)
    assert (result.kept, result.missing) == (1, 3)
    assert not result.is_unlimited
    assert "eve" in result.saved_as.read_text()
    repaired = Ledger(path)
    repaired.expect(head)
    # One intact entry, and for three missing ones the worst of each kind seen.
    assert epsilon(repaired) > epsilon(ledger)
    assert set(repaired.spending.largest("client")[0].events) == {
        events.times(STEP, 4),
        events.times(dear, 3),
    }


def test_repair_of_a_shortened_ledger_needs_what_is_remembered(path, three):
    head = three.head()
    damage(path, 2, lambda line: None)
    with pytest.raises(LedgerError, match="nothing is damaged"):
        repair_ledger(path)
    assert repair_ledger(path, expected_head=head).missing == 1
    repaired = Ledger(path)
    repaired.expect(head)
    assert epsilon(repaired) == pytest.approx(epsilon(three))
    repaired.charge(charge(5))
    Ledger(path).expect(repaired.head())


def test_what_is_missing_may_have_been_of_any_unit_that_was_charged(path):
    ledger = Ledger(path)
    for number, unit in enumerate(["entity", "client", "entity"]):
        ledger.charge(charge(number, unit=unit))
    damage(path, 0, lambda line: line.replace("ada", "eve"))
    repair_ledger(path)
    repaired = Ledger(path)
    assert epsilon(repaired, "example") == pytest.approx(cost(3))
    assert epsilon(repaired, "entity") == epsilon(repaired, "client") == math.inf


@pytest.fixture
def repaired(path, three):
    """Three entries, the last of which stands for eight that were lost."""
    damage(path, 2, lambda line: None)
    repair_ledger(path, expected_head={"length": 10, "hash": "f" * 64})
    return Ledger(path)


def test_a_repaired_ledger_cannot_be_shortened_unnoticed(path, repaired):
    old = {"length": 10, "hash": "f" * 64}
    repaired.expect(old)
    cut = path.read_bytes()
    for number in range(5):
        repaired.charge(charge(number, run="later"))
    head = repaired.head()
    Ledger(path).expect(head)
    path.write_bytes(cut)
    with pytest.raises(LedgerError, match="was shortened"):
        Ledger(path).expect(head)
    Ledger(path).charge(charge(9))
    with pytest.raises(LedgerError, match="was replaced"):
        Ledger(path).expect(head | {"length": Ledger(path).head()["length"]})
    Ledger(path).expect(old)


def test_a_repair_that_is_lost_is_repaired_with_all_it_stood_for(path, repaired):
    head, spent = repaired.head(), epsilon(repaired)
    damage(path, 2, lambda line: None)
    with pytest.raises(LedgerError, match="was shortened"):
        Ledger(path).expect(head)
    # Eight, and the repair's own entry.
    assert repair_ledger(path, expected_head=head).missing == 9
    Ledger(path).expect(head)
    assert epsilon(Ledger(path)) >= spent


def test_a_later_repair_counts_what_an_earlier_one_stood_for(path, repaired):
    repaired.charge(charge(5))
    head = repaired.head()
    damage(path, 1, lambda line: line.replace("ada", "eve"))
    assert repair_ledger(path).missing == head["length"] - 1
    again = Ledger(path)
    again.expect(head)
    again.charge(charge(6))
    assert again.head()["length"] == head["length"] + 2


def test_a_lost_ledger_makes_data_public_unless_its_plan_is_known(path):
    head = {"length": 4, "hash": "f" * 64}
    assert repair_ledger(path, expected_head=head).is_unlimited
    assert epsilon(Ledger(path)) == math.inf
    path.unlink()
    repair_ledger(path, expected_head=head, worst_event=STEP, unit="client")
    assert epsilon(Ledger(path)) == pytest.approx(cost(4))


def test_private_data_has_one_ledger_for_all_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    first, second = (
        ledger_path(dataset_name=name, is_private=True, run_dir=tmp_path)
        for name in ("my bank", "my/bank")
    )
    assert first.parent == tmp_path / "state" / "ledgers"
    assert first != second
    public = ledger_path(dataset_name="digits", is_private=False, run_dir=tmp_path)
    assert public == tmp_path / "ledger.jsonl"


def test_state_follows_xdg_where_nothing_is_set(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDTRAIN_STATE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = ledger_path(dataset_name="bank", is_private=True)
    assert path.is_relative_to(tmp_path / "fedtrain" / "ledgers")


def test_entries_are_plain_json(three, path):
    first = json.loads(path.read_text().splitlines()[0])
    assert first["events"] == [
        {"event": "gaussian", "noise_multiplier": 2.0, "count": 1}
    ]


def test_a_state_folder_that_cannot_be_used_is_a_ledger_error(tmp_path, monkeypatch):
    (tmp_path / "state").write_text("a file, not a folder")
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    path = ledger_path(dataset_name="bank", is_private=True)
    for use in (lambda: Ledger(path).charge(charge()), lambda: repair_ledger(path)):
        with pytest.raises(LedgerError, match="FEDTRAIN_STATE_DIR"):
            use()


def test_a_ledger_that_cannot_be_read_or_written_is_a_ledger_error(tmp_path):
    folder = tmp_path / "ledger.jsonl"
    folder.mkdir()
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(folder)


def test_a_lock_that_another_run_keeps_is_a_ledger_error(path, three, monkeypatch):
    monkeypatch.setattr(chain, "_LOCK_TIMEOUT_S", 0.05)
    damage(path, 1, lambda line: None)
    with FileLock(f"{path}.lock"):
        for use in (lambda: three.charge(charge(5)), lambda: repair_ledger(path)):
            with pytest.raises(LedgerError, match=r"locked by another run for 0\.05 s"):
                use()
