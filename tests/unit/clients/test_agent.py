import contextlib
import hashlib

import grpc
import numpy as np
import pytest

from clients import home as home_module
from clients.answers import Answers
from clients.audit import entries
from clients.calls import RefusedError
from clients.work import RoundTask
from fedtrain.core.errors import (
    BudgetExhaustedError,
    ConfigError,
    LedgerError,
    PolicyError,
    StoppedError,
)
from fedtrain.wire import messages_pb2 as pb
from tests.unit.clients.light_work import LightWork

pytestmark = pytest.mark.network
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def test_each_round_is_computed_charged_kept_sent_and_recorded(aggregator, bank):
    bank.work._cost = ("example", {})
    aggregator.info = b'{"round": "public"}'
    bank.run()
    assert bank.said[-1] == "finished"
    assert bank.left == ["sending", "accepted"] * 2
    assert bank.odometer.charged == bank.work.tasks
    assert bank.work.tasks[0].info == {"round": "public"}
    for number, content in aggregator.taken.items():
        sent = np.frombuffer(content, np.float32)
        noise = sent - 2 * np.arange(8, dtype=np.float32)
        assert (noise == noise[0]).all()
        record = entries(bank.home.audit_path)[2 * number]
        assert record["sha256"] == hashlib.sha256(content).hexdigest()
        assert record["bytes"] == 32
        assert record["spent"]["epsilon"] == number + 1


@pytest.mark.parametrize("method", ["Hello", "Next", "Fetch", "Submit"])
def test_lost_calls_are_made_again(aggregator, bank, method):
    codes = [UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN]
    aggregator.faults[method].extend(codes)
    bank.run()
    assert sorted(aggregator.taken) == [0, 1]
    assert len(bank.work.tasks) == 2
    assert bank.said.count("waiting") == 3


def test_an_answer_whose_receipt_was_lost_is_sent_again_as_it_was(aggregator, bank):
    aggregator.faults["Submit"].extend(["unacknowledged", pb.MALFORMED, pb.BUSY])
    bank.run()
    first = aggregator.arrived[0]
    assert len(first) == 4
    assert set(first) == {aggregator.taken[0]}
    assert len(bank.work.tasks) == 2
    assert bank.left == ["sending", "accepted"] * 2


def test_a_restarted_agent_sends_the_saved_answer(aggregator, bank):
    bank.work._cost = ("example", {})
    aggregator.faults["Submit"].append("unacknowledged")

    def die():
        raise KeyboardInterrupt

    bank.on_pause = die
    with pytest.raises(KeyboardInterrupt):
        bank.run()
    bank.on_pause = lambda: None
    bank.run()
    assert set(aggregator.arrived[0]) == {aggregator.taken[0]}
    assert len(bank.odometer.charged) == len(bank.work.tasks) == 2
    assert bank.left == ["sending", "sending", "accepted", "sending", "accepted"]


def test_the_aggregator_may_restart(aggregator, bank):
    aggregator.faults["Submit"].append(UNAVAILABLE)
    restarts = iter([aggregator.restart])
    bank.on_pause = lambda: next(restarts, lambda: None)()
    bank.run()
    assert sorted(aggregator.taken) == [0, 1]


def test_a_damaged_broadcast_is_fetched_again(aggregator, bank):
    aggregator.faults["Fetch"].append("damaged")
    bank.run()
    assert aggregator.said.count("Fetch") == 3
    assert len(bank.work.tasks) == 2


def test_a_broadcast_of_another_length_is_never_received(aggregator, bank):
    aggregator.broadcast += b"more"
    bank.on_pause = iter([None]).__next__
    with pytest.raises(StopIteration):
        bank.run()
    assert "Fetch" not in aggregator.said
    assert not bank.work.tasks


def test_a_late_answer_is_recorded_and_the_next_round_begun(aggregator, bank):
    aggregator.faults["Submit"].append(pb.LATE)
    bank.run()
    assert bank.left == ["sending", "late", "sending", "accepted"]
    assert sorted(aggregator.taken) == [1]


def test_a_round_that_closes_before_its_broadcast_costs_nothing(aggregator, bank):
    aggregator.faults["Fetch"].append(grpc.StatusCode.FAILED_PRECONDITION)
    bank.work._cost = ("example", {})
    bank.run()
    assert "late" in bank.said
    assert len(bank.odometer.charged) == len(bank.work.tasks) == 2


def test_an_answer_that_is_not_taken_is_not_computed_again(aggregator, bank):
    aggregator.faults["Submit"].append(pb.NON_FINITE)
    bank.run()
    assert bank.left[:4] == ["sending", "rejected", "sending", "accepted"]
    assert len(bank.work.tasks) == 2


def test_a_damaged_answer_that_may_have_been_seen_is_lost(aggregator, bank):
    aggregator.faults["Submit"].append("unacknowledged")
    (path,) = [bank.home.answers_path / "run-1.0.0.train"]

    def damage():
        if path.exists():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            raise KeyboardInterrupt

    bank.on_pause = damage
    with pytest.raises(KeyboardInterrupt):
        bank.run()
    bank.on_pause = lambda: setattr(aggregator, "round_number", 1)
    bank.run()
    assert "lost" in bank.said
    assert [task.round_number for task in bank.work.tasks] == [0, 1]


def test_an_answer_damaged_before_it_left_is_computed_anew(aggregator, bank):
    asked = bank.home.answers_path / "run-1.0.0.train"
    bank.home.answers_path.mkdir()
    asked.write_bytes(b'{"sha256": "", "broadcast_sha256": ""}\nrubbish')
    bank.run()
    assert sorted(aggregator.taken) == [0, 1]


def test_what_work_keeps_is_there_again_after_a_crash_and_only_with_its_answer(
    aggregator, bank
):
    def compute(task, broadcast):
        bank.work.kept += b"%d" % task.round_number
        return LightWork.compute(bank.work, task, broadcast)

    def compute_and_crash(task, broadcast):
        answer = compute(task, broadcast)
        if task.round_number == 1:
            raise KeyboardInterrupt
        return answer

    bank.work.compute = compute_and_crash
    with pytest.raises(KeyboardInterrupt):
        bank.run()
    bank.work = LightWork()
    bank.work.compute = compute
    bank.run()
    following = RoundTask("run-1", 2, 0, "train", "", {})
    assert Answers(bank.home.answers_path).kept(following) == b"01"


def test_without_an_approval_it_waits_and_says_so(aggregator, bank):
    bank.home.policy_path.unlink()
    bank.on_pause = lambda: "waiting for approval" in aggregator.said and bank.approve()
    bank.run()
    assert bank.said[:3] == ["connected", "not approved", "work"]
    assert sorted(aggregator.taken) == [0, 1]


@pytest.mark.parametrize("clause", [{"max_epsilon": 1.0}, {"min_rows": 11}])
def test_what_the_policy_forbids_is_not_computed(aggregator, bank, clause):
    bank.approve(**clause)
    with pytest.raises(PolicyError, match=next(iter(clause))):
        bank.run()
    assert not bank.work.tasks
    assert ("work" in bank.said) == ("min_rows" in clause)
    assert not aggregator.arrived


def test_a_withdrawn_approval_stops_what_was_about_to_leave(aggregator, bank):
    compute = bank.work.compute

    def and_withdraw(task, broadcast):
        bank.home.policy_path.unlink()
        return compute(task, broadcast)

    bank.work.compute = and_withdraw
    with pytest.raises(PolicyError, match="approval"):
        bank.run()
    assert not aggregator.arrived
    assert not bank.left


def test_beyond_the_budget_nothing_is_computed_or_sent(aggregator, bank):
    bank.work._cost = ("example", {})
    bank.odometer.budget = 1
    with pytest.raises(BudgetExhaustedError):
        bank.run()
    assert len(bank.work.tasks) == len(aggregator.arrived) == 1


def test_a_full_disk_is_waited_for(aggregator, bank, monkeypatch):
    save, failures = Answers.save, iter([OSError(28, "No space left on device")])

    def full_once(*args):
        for error in failures:
            raise error
        return save(*args)

    monkeypatch.setattr(Answers, "save", full_once)
    bank.work._cost = ("example", {})
    bank.run()
    assert "disk" in bank.said
    assert len(bank.odometer.charged) == 2
    assert sorted(aggregator.taken) == [0, 1]


def test_a_tampered_audit_log_stops_the_agent(aggregator, bank):
    bank.run()
    aggregator.round_number = 0
    log = bank.home.audit_path
    log.write_text(log.read_text().replace('"bytes":32', '"bytes":16'))
    with pytest.raises(LedgerError, match="entry 1 "):
        bank.run()


def test_every_ledger_that_was_charged_is_expected_to_be_whole(aggregator, bank):
    expected = []
    bank.odometer.expect = expected.append
    bank.odometer.head = lambda: {"file": "first rows", "length": 7, "hash": ""}
    aggregator.num_rounds = 1
    bank.run()
    bank.odometer.head = lambda: {"file": "other rows", "length": 1, "hash": ""}
    aggregator.num_rounds = 2
    bank.run()
    bank.run()
    assert {head["file"]: head["length"] for head in expected[-2:]} == {
        "first rows": 7,
        "other rows": 1,
    }


def test_a_revoked_client_stops_with_a_sentence(aggregator, bank, authority):
    aggregator.faults["Next"].append(lambda: authority.revoke("bank-a"))
    with pytest.raises(RefusedError, match="was revoked"):
        bank.run()
    assert RefusedError("").exit_code == 11


def test_another_plan_stops_it(aggregator, bank, plan):
    other = plan.model_copy(update={"num_rounds": 6})
    aggregator.plan_bytes = other.canonical()
    with pytest.raises(StoppedError, match=other.sha256):
        bank.run()
    assert StoppedError("").exit_code == 16
    assert not bank.work.tasks


@pytest.mark.parametrize("code", [pb.WRONG_PLAN, pb.WRONG_VERSION])
def test_a_wrong_plan_or_version_stops_it(aggregator, bank, code):
    aggregator.faults["Next"].append(code)
    with pytest.raises(StoppedError, match=pb.Code.Name(code)):
        bank.run()


def test_a_stopped_run_ends_with_the_operators_words(aggregator, bank):
    aggregator.ending = pb.Task(
        code=pb.ACCEPTED, kind=pb.STOPPED, text="too few\x1b[2J partners"
    )
    with pytest.raises(StoppedError, match=r"too few \[2J partners"):
        bank.run()


@pytest.mark.parametrize("kind", [pb.FINISHED, pb.STOPPED])
def test_the_noise_key_lives_until_the_run_has_ended(aggregator, bank, kind):
    forgotten_at = []
    compute = bank.work.compute

    def and_note(task, broadcast):
        forgotten_at.append(bank.work.has_forgotten)
        return compute(task, broadcast)

    bank.work.compute = and_note
    aggregator.num_rounds = 1
    aggregator.ending = pb.Task(code=pb.ACCEPTED, kind=kind)
    with contextlib.suppress(StoppedError):
        bank.run()
    assert bank.left == ["sending", "accepted"]
    assert forgotten_at == [False]
    assert bank.work.has_forgotten


def test_a_run_may_be_called_by_a_name_with_dots(aggregator, bank):
    aggregator.run_id = "credit.v2-20261122-1a2b"
    bank.run()
    assert sorted(aggregator.taken) == [0, 1]


def test_rounds_and_evaluations_beyond_the_plan_are_refused(aggregator, bank):
    aggregator.round_number, aggregator.num_rounds = 5, 6
    with pytest.raises(StoppedError, match="asks for round 5"):
        bank.run()
    aggregator.round_number, aggregator.kind = 0, pb.EVALUATE
    with pytest.raises(StoppedError, match="evaluation"):
        bank.run()
    assert not aggregator.arrived


def test_a_due_certificate_is_renewed_without_a_restart(aggregator, bank, monkeypatch):
    due = iter([True])
    monkeypatch.setattr(
        home_module, "needs_renewal", lambda *args, **kwargs: next(due, False)
    )
    bank.run()
    assert aggregator.said.count("Renew") == 1
    assert "renewed" in bank.said
    assert bank.home.pair().certificate_pem.decode() != bank.invitation.certificate
    assert sorted(aggregator.taken) == [0, 1]


def test_one_agent_for_a_home(bank):
    with bank.home.alone(), pytest.raises(ConfigError, match="Another agent"):
        bank.run()


def test_a_clock_that_was_put_back_makes_no_replay(aggregator, bank):
    bank.run()
    path = bank.home.path / "sequence"
    path.write_text(str(int(path.read_text()) + 10**15))
    aggregator._guard.accept("bank-a", int(path.read_text()))
    aggregator.round_number = 1
    bank.run()
    assert bank.said[-1] == "finished"
