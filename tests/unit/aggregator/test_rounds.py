import errno
import hashlib
import threading
import time

import numpy as np
import pytest

from aggregator import spool
from aggregator.rounds import RunStoppedError
from aggregator.uploads import RefusedError
from fedtrain.core.errors import (
    BudgetExhaustedError,
    ConfigError,
    JournalError,
    TooFewClientsError,
)
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import to_bytes
from tests.unit.aggregator.light_round import (
    PLAN_SHA256,
    SPECS,
    Collecting,
    arrays_of,
    call,
    equal,
    opened,
    send,
    submit,
    sum_of,
    until,
)


@pytest.fixture
def rounds(tmp_path):
    journal, rounds = opened(tmp_path)
    yield rounds
    journal.close()


def test_the_sum_is_in_the_cohorts_order_whatever_the_order_of_arrival(rounds):
    cohort = ["c", "a", "d", "b"]
    collecting = Collecting(rounds, call(cohort))
    for client in ["a", "b", "c", "d"]:
        assert submit(rounds, client, arrays_of(client)) == pb.ACCEPTED
    collected = collecting.done()
    assert collected.accepted == tuple(cohort)
    assert equal(collected.total(), sum_of(cohort))
    assert not equal(sum_of(cohort), sum_of(sorted(cohort)))  # the order shows


def test_a_sum_keeps_the_sign_of_zeros(rounds):
    collecting = Collecting(rounds, call(["a"]))
    submit(rounds, "a", [np.full((3, 2), -0.0, np.float32), np.array(0, np.int64)])
    total = collecting.done().total()
    assert np.signbit(total[0]).all()


def test_each_client_is_told_what_to_do(rounds):
    assert rounds.task_for("a").kind == pb.WAIT
    collecting = Collecting(rounds, call(["a", "b"]))
    task = rounds.task_for("a")
    assert (task.kind, task.round_number, task.attempt) == (pb.TRAIN, 0, 0)
    assert task.broadcast_bytes == 16
    path = rounds.broadcast_for("a", 0, pb.FetchRequest(attempt=0, kind=pb.TRAIN))
    assert path.read_bytes() == np.zeros(4, np.float32).tobytes()
    assert rounds.task_for("stranger").kind == pb.WAIT
    submit(rounds, "a", arrays_of("a"))
    assert rounds.task_for("a").kind == pb.WAIT
    submit(rounds, "b", arrays_of("b"))
    collecting.done()
    rounds.finish("finished", "all done")
    assert rounds.task_for("a").kind == pb.FINISHED


def test_every_unfit_contribution_has_its_code_and_does_no_harm(rounds):
    collecting = Collecting(rounds, call(["a", "b"], goal=2))
    content = to_bytes(SPECS, arrays_of("a"))
    good = _header(content)
    assert send(rounds, "stranger", good, content) == pb.NOT_INVITED
    assert send(rounds, "a", good, content[:-1]) == pb.MALFORMED
    assert send(rounds, "a", good, content + b"x") == pb.MALFORMED
    assert send(rounds, "a", good, b"x" + content[1:]) == pb.MALFORMED
    assert send(rounds, "a", _header(content[:-4]), content[:-4]) == pb.WRONG_SHAPE
    assert send(rounds, "a", _header(content, attempt=1), content) == pb.LATE
    assert send(rounds, "a", good, content, 1) == pb.NOT_INVITED
    assert send(rounds, "a", _header(content, kind=pb.WAIT), content) == pb.MALFORMED
    wrong_plan = _header(content, plan_sha256=bytes(32))
    assert send(rounds, "a", wrong_plan, content) == pb.WRONG_PLAN
    assert send(rounds, "a", good, content) == pb.ACCEPTED
    assert send(rounds, "a", good, content) == pb.DUPLICATE
    assert submit(rounds, "a", arrays_of("b")) == pb.CONFLICT
    assert submit(rounds, "b", arrays_of("b")) == pb.ACCEPTED
    assert equal(collecting.done().total(), sum_of(["a", "b"]))
    assert submit(rounds, "c", arrays_of("c")) == pb.NOT_INVITED
    assert send(rounds, "a", good, content) == pb.DUPLICATE


def _header(content, **changes):
    values = {
        "attempt": 0,
        "kind": pb.TRAIN,
        "num_bytes": len(content),
        "sha256": hashlib.sha256(content).digest(),
        "plan_sha256": bytes.fromhex(PLAN_SHA256),
    }
    return pb.SubmitHeader(**{**values, **changes})


def test_numbers_that_are_not_finite_count_as_lost(rounds):
    collecting = Collecting(rounds, call(["a", "b"], least=1))
    bad = arrays_of("a")
    bad[0][1, 1] = np.inf
    assert submit(rounds, "a", bad) == pb.NON_FINITE
    assert submit(rounds, "a", arrays_of("a")) == pb.NON_FINITE
    assert submit(rounds, "b", arrays_of("b")) == pb.ACCEPTED
    collected = collecting.done()
    assert collected.lost == {"a": "numbers that are not finite"}
    assert equal(collected.total(), sum_of(["b"]))


def test_the_report_goal_closes_the_round_and_the_rest_is_late(rounds):
    collecting = Collecting(rounds, call(["a", "b", "c"], goal=2))
    for client in ["c", "a"]:
        submit(rounds, client, arrays_of(client))
    assert submit(rounds, "b", arrays_of("b")) == pb.LATE
    collected = collecting.done()
    assert collected.accepted == ("a", "c")
    assert "not needed" in collected.lost["b"]


def test_too_few_at_the_deadline_stop_the_run_which_then_goes_on(tmp_path):
    clock = _Clock()
    journal, rounds = opened(tmp_path, clock=clock)
    asked = call(["a", "b"], least=2, deadline_s=5.0, max_deadlines=2)
    collecting = Collecting(rounds, asked)
    submit(rounds, "a", arrays_of("a"))
    clock.advance(5.5)
    until(lambda: rounds.book.current.num_deadlines == 2)
    clock.advance(5.5)
    with pytest.raises(TooFewClientsError, match="Missing: b") as failed:
        collecting.done()
    assert failed.value.exit_code == 14
    journal.close()

    journal, rounds = opened(tmp_path)
    collecting = Collecting(rounds, asked)
    assert rounds.task_for("a").kind == pb.WAIT
    submit(rounds, "b", arrays_of("b"))
    assert equal(collecting.done().total(), sum_of(["a", "b"]))
    journal.close()


def test_an_evaluation_with_too_few_answers_is_given_up_and_said(tmp_path):
    clock = _Clock()
    journal, rounds = opened(tmp_path, clock=clock)
    asked = call(["a", "b"], least=2, deadline_s=5.0, kind="evaluate")
    collecting = Collecting(rounds, asked)
    clock.advance(5.5)
    with pytest.raises(TooFewClientsError):
        collecting.done()
    last = rounds.book.recent[-1]
    assert (last.kind, last.body["task"]) == ("aborted", "evaluate")
    assert last.body["why"] == "too few answers; this evaluation is left out"
    assert rounds.task_for("a").kind == pb.WAIT
    collecting = Collecting(rounds, call(["a", "b"], round_number=1))
    for client in ("a", "b"):
        submit(rounds, client, arrays_of(client, 1), round_number=1)
    assert collecting.done().accepted == ("a", "b")
    journal.close()


class _Clock:
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def test_a_deadline_closes_a_round_with_enough(tmp_path):
    clock = _Clock()
    journal, rounds = opened(tmp_path, clock=clock)
    collecting = Collecting(rounds, call(["a", "b"], deadline_s=5.0))
    submit(rounds, "b", arrays_of("b"))
    clock.advance(6.0)
    collected = collecting.done()
    assert collected.accepted == ("b",)
    assert collected.lost == {"a": "no answer within 1 x 5 s"}
    journal.close()


def test_the_wall_clock_neither_ends_nor_prolongs_a_round(tmp_path, monkeypatch):
    clock = _Clock()
    journal, rounds = opened(tmp_path, clock=clock)
    collecting = Collecting(rounds, call(["a", "b"], deadline_s=5.0))
    for jump_ns in (10**18, -(10**18)):
        true_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda j=jump_ns, t=true_ns: t() + j)
        submit(rounds, "a", arrays_of("a"))
        with rounds.book.changed:
            rounds.book.changed.notify_all()  # the training thread looks again
        time.sleep(0.05)
        assert rounds.book.current is not None
    clock.advance(6.0)
    assert collecting.done().accepted == ("a",)
    journal.close()


def test_with_too_many_lost_the_next_start_asks_all_again(tmp_path):
    journal, rounds = opened(tmp_path)
    collecting = Collecting(rounds, call(["a", "b"], least=2))
    bad = arrays_of("a")
    bad[0][0, 0] = np.nan
    submit(rounds, "a", bad)
    with pytest.raises(TooFewClientsError, match="a is lost: numbers"):
        collecting.done()
    collecting = Collecting(rounds, call(["a", "b"], least=2))
    for client in ("a", "b"):
        assert submit(rounds, client, arrays_of(client), attempt=1) == pb.ACCEPTED
    assert collecting.done().attempt == 1
    journal.close()


def test_a_restart_between_any_two_steps_gives_the_same_sum(tmp_path):
    asked = call(["a", "b", "c"])
    for restarted_after in ("a", "b", "c", "closed", "committed"):
        folder = tmp_path / restarted_after
        journal, rounds = opened(folder)
        collecting = Collecting(rounds, asked)
        for client in ("a", "b", "c"):
            submit(rounds, client, arrays_of(client))
            if client == restarted_after != "c":
                rounds.stop()
                with pytest.raises(RunStoppedError):
                    collecting.done()
                journal.close()
                journal, rounds = opened(folder)
                collecting = Collecting(rounds, asked)
        collecting.done()
        if restarted_after == "committed":
            rounds.committed(0, "00" * 32)
        journal.close()
        journal, rounds = opened(folder)
        collected = rounds.collect(asked)
        assert (collected.attempt, collected.accepted) == (0, ("a", "b", "c"))
        assert equal(collected.total(), sum_of(["a", "b", "c"]))
        journal.close()


def test_other_weights_begin_another_attempt(rounds):
    collecting = Collecting(rounds, call(["a"]))
    submit(rounds, "a", arrays_of("a"))
    collecting.done()
    collecting = Collecting(rounds, call(["a"], broadcast=[np.ones(4, np.float32)]))
    assert rounds.task_for("a").attempt == 1
    assert submit(rounds, "a", arrays_of("a")) == pb.LATE
    assert submit(rounds, "a", arrays_of("a"), attempt=1) == pb.ACCEPTED
    assert collecting.done().attempt == 1


def test_files_of_a_round_are_kept_until_the_next_commit(rounds, tmp_path):
    for number in range(3):
        collecting = Collecting(rounds, call(["a"], round_number=number))
        submit(rounds, "a", arrays_of("a", number), round_number=number)
        collecting.done()
        rounds.charged(number, {"ledger": "head"})
        rounds.committed(number, f"{number:064d}")
        rounds.committed(number, f"{number:064d}")
    spool = tmp_path / "spool"
    assert {path.name for path in spool.glob("train-*")} == {"train-2-0"}
    assert len(list((spool / "broadcasts").iterdir())) == 1
    assert submit(rounds, "a", arrays_of("a")) == pb.LATE
    # A run that went back by two checkpoints asks again, under a new attempt.
    collecting = Collecting(rounds, call(["a"], round_number=0))
    assert rounds.task_for("a").attempt == 1
    submit(rounds, "a", arrays_of("a"), attempt=1)
    assert collecting.done().attempt == 1


def test_a_new_folder_is_on_the_disk_before_its_files_are_acknowledged(
    rounds, monkeypatch
):
    synced = []
    monkeypatch.setattr(spool, "sync_folder", synced.append)
    collecting = Collecting(rounds, call(["a"]))
    submit(rounds, "a", arrays_of("a"))
    ((path, _),) = collecting.done().paths
    assert {path.parent, path.parent.parent} <= set(synced)


def test_a_run_that_went_back_by_one_checkpoint_asks_nobody_again(tmp_path):
    journal, rounds = opened(tmp_path)
    for number in range(3):
        collecting = Collecting(rounds, call(["a"], round_number=number))
        submit(rounds, "a", arrays_of("a", number), round_number=number)
        collecting.done()
        rounds.charged(number, {"ledger": "head"})
        if number < 2:
            rounds.committed(number, f"{number:064d}")
    journal.close()
    journal, rounds = opened(tmp_path)
    rounds.committed(0, f"{0:064d}")  # what the older checkpoint is of
    for number in (1, 2):
        collected = rounds.collect(call(["a"], round_number=number))
        assert equal(collected.total(), arrays_of("a", number))
        rounds.charged(number, {"ledger": "head"})
        rounds.committed(number, f"{number:064d}")
    journal.close()


def test_a_round_that_was_never_collected_is_not_committed(rounds):
    with pytest.raises(JournalError, match="not collected"):
        rounds.committed(0, "00" * 32)


def test_an_attempt_is_paid_for_before_anybody_is_asked(rounds):
    paid = []

    def pay(attempt):
        if attempt == 2:
            raise BudgetExhaustedError("too much")
        paid.append((attempt, rounds.task_for("a").kind))

    def asked(weight):
        broadcast = [np.full(4, weight, np.float32)]
        return call(["a"], broadcast=broadcast, before_attempt=pay)

    for attempt in (0, 1):
        collecting = Collecting(rounds, asked(attempt))
        submit(rounds, "a", arrays_of("a"), attempt=attempt)
        collecting.done()
        rounds.collect(asked(attempt))  # goes on: nobody is asked, nothing is paid
    assert paid == [(0, pb.WAIT), (1, pb.WAIT)]
    with pytest.raises(BudgetExhaustedError):
        rounds.collect(asked(2))
    assert rounds.task_for("a").kind == pb.WAIT


def test_an_interrupt_while_the_journal_is_written_leaves_one_that_can_be_read(
    tmp_path, monkeypatch
):
    accepted = []
    journal, rounds = opened(tmp_path, clock=lambda: 100.0 * len(accepted))
    append = journal.append

    def interrupted(drafts):
        events = append(drafts)
        if any(draft.kind == "closed" for draft in drafts):
            raise KeyboardInterrupt
        accepted.extend(draft for draft in drafts if draft.kind == "accepted")
        return events

    monkeypatch.setattr(journal, "append", interrupted)
    asked = call(["a", "b"])

    def send_when_asked():
        until(lambda: rounds.book.current is not None)
        submit(rounds, "a", arrays_of("a"))

    sender = threading.Thread(target=send_when_asked)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        rounds.collect(asked)
    sender.join()
    # The port drains: what comes now cannot follow what the journal holds.
    with pytest.raises(JournalError, match="interrupted"):
        submit(rounds, "b", arrays_of("b"))
    journal.close()
    journal, rounds = opened(tmp_path)
    assert rounds.collect(asked).accepted == ("a",)
    journal.close()


def test_a_contribution_that_the_disk_damaged_is_lost_and_named(tmp_path):
    journal, rounds = opened(tmp_path)
    collecting = Collecting(rounds, call(["a", "b", "c"]))
    submit(rounds, "a", arrays_of("a"))
    submit(rounds, "b", arrays_of("b"))
    rounds.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    journal.close()
    _flip_a_bit(next((tmp_path / "spool").glob("train-0-0/00000-*")))

    journal, rounds = opened(tmp_path)
    collecting = Collecting(rounds, call(["a", "b", "c"]))
    submit(rounds, "c", arrays_of("c"))
    collected = collecting.done()
    assert collected.lost == {"a": "the disk has damaged its contribution"}
    assert equal(collected.total(), sum_of(["b", "c"]))
    _flip_a_bit(next((tmp_path / "spool").glob("train-0-0/00002-*")))
    with pytest.raises(JournalError, match="damaged it"):
        collected.total()
    journal.close()


@pytest.mark.parametrize("damage", ["removed", "truncated", "flipped"])
def test_a_broadcast_that_the_disk_damaged_is_written_again(tmp_path, damage):
    journal, rounds = opened(tmp_path)
    collecting = Collecting(rounds, call(["a"]))
    rounds.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    journal.close()
    (path,) = (tmp_path / "spool" / "broadcasts").iterdir()
    if damage == "removed":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(b"")
    else:
        _flip_a_bit(path)

    journal, rounds = opened(tmp_path)
    asked = ("a", 0, pb.FetchRequest(attempt=0, kind=pb.TRAIN))
    with pytest.raises(RefusedError, match="written again") as refused:
        rounds.broadcast_for(*asked)
    assert refused.value.code == pb.BUSY
    collecting = Collecting(rounds, call(["a"]))
    submit(rounds, "a", arrays_of("a"))
    assert collecting.done().attempt == 0
    assert path.read_bytes() == np.zeros(4, np.float32).tobytes()
    journal.close()


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def test_a_full_disk_is_busy_and_the_round_survives(rounds, monkeypatch):
    collecting = Collecting(rounds, call(["a"]))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("aggregator.spool.os.fsync", full)
        assert submit(rounds, "a", arrays_of("a")) == pb.BUSY
        patched.setattr("aggregator.spool.SpoolWriter.write", full)
        assert submit(rounds, "a", arrays_of("a")) == pb.BUSY
    assert submit(rounds, "a", arrays_of("a")) == pb.ACCEPTED
    assert equal(collecting.done().total(), sum_of(["a"]))


def test_a_broadcast_waits_for_room_on_the_disk(rounds, monkeypatch):
    tries = []
    store = rounds._spool.store_broadcast

    def full_at_first(content):
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return store(content)

    monkeypatch.setattr("aggregator.collector._POLL_S", 0.01)
    monkeypatch.setattr(rounds._spool, "store_broadcast", full_at_first)
    collecting = Collecting(rounds, call(["a"]))
    assert submit(rounds, "a", arrays_of("a")) == pb.ACCEPTED
    collecting.done()
    assert len(tries) == 3


def test_one_upload_of_a_client_at_a_time(rounds):
    collecting = Collecting(rounds, call(["a"]))
    content = to_bytes(SPECS, arrays_of("a"))
    request = pb.SignedRequest(client_id="a", sequence=1)
    upload = rounds.submission(request, _header(content))
    assert submit(rounds, "a", arrays_of("a")) == pb.BUSY
    upload.abandon()
    assert submit(rounds, "a", arrays_of("a")) == pb.ACCEPTED
    collecting.done()


def test_status_says_who_is_missing_since_when_and_when_the_round_closes(rounds):
    assert "no round is open" in rounds.status()["text"]
    collecting = Collecting(rounds, call(["a", "b", "c"], goal=2))
    rounds.task_for("b")
    submit(rounds, "a", arrays_of("a"))
    status = rounds.status()
    found = status["round"]
    assert found["accepted"] == ["a"]
    assert found["closes"].startswith("when 2 of 3 contributions are in, or at 20")
    assert [(m["client"], m["text"]) for m in found["missing"]] == [
        ("b", "was told of the round"),
        ("c", "has not asked since the round opened"),
    ]
    assert abs(found["missing"][1]["since_unix_ms"] - 1000 * time.time()) < 20_000
    submit(rounds, "b", arrays_of("b"))
    collecting.done()
    assert rounds.status()["participations"] == {"a": 1, "b": 1}


def test_many_threads_count_each_client_once(rounds):
    cohort = [f"client-{n}" for n in range(24)]
    collecting = Collecting(rounds, call(cohort))
    codes = []

    def send_twice(client):
        codes.extend(submit(rounds, client, arrays_of(client)) for _ in range(2))

    threads = [threading.Thread(target=send_twice, args=(c,)) for c in cohort]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [pb.ACCEPTED] * 24 + [pb.DUPLICATE] * 24
    assert equal(collecting.done().total(), sum_of(cohort))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cohort": ("a", "a")}, "twice"),
        ({"report_goal": 3}, "report_goal"),
        ({"least_reports": 0}, "least_reports"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"run_id": "other"}, "run_id"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(rounds, changes, words):
    with pytest.raises(ConfigError, match=words):
        rounds.collect(call(["a", "b"])._replace(**changes))
