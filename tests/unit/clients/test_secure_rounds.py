"""Secure aggregation between real agents and the real aggregator, over mutual TLS."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from secure_banks import DEADLINE_S, NAMES, Federation, sum_of

from aggregator.rounds import RunStoppedError
from clients import audit
from clients.served import round_task
from fedtrain.core.errors import PolicyError, TooFewClientsError
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.envelopes import encoded
from fedtrain.secagg.messages_pb2 import DEAL, Deal, DealUpload
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.identity import key_text, new_keys

pytestmark = pytest.mark.network
_PATIENCE_S = 240.0


class GoneError(Exception):
    """A partner's process ends here."""


@pytest.fixture
def federation(tmp_path, authority):
    found = Federation(tmp_path, authority)
    yield found
    found.close()


def until(condition):
    give_up = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def assert_sum(collected, names, round_number=0):
    (found,) = collected.total()
    assert collected.accepted == tuple(names)
    np.testing.assert_array_equal(found, sum_of(names, round_number, collected.attempt))


def test_every_round_gives_the_sum_and_nothing_but_the_sum(federation, tmp_path):
    with federation.aggregator() as rounds:
        running = federation.join()
        for number in range(2):
            collected = federation.collecting(rounds, number).result(_PATIENCE_S)
            assert_sum(collected, NAMES, number)
            rounds.committed(number, "ab" * 32)
        assert len(list((tmp_path / "spool").glob("train-*/*"))) == 1  # the sum
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert federation.attempts == [0, 0]
    for bank in federation.banks:
        one_round = ["sending", "accepted", "confirming"]
        assert bank.left == one_round * 2
        assert len(bank.odometer.charged) == 2
        audit.verify(bank.home.audit_path)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_partner_that_vanishes_is_left_out_or_opened_by_the_others(federation, when):
    lost, others = federation.banks[4], NAMES[:4]

    def vanishes(*_):
        raise GoneError

    if when == "before":
        lost.work.before_computing = vanishes
    else:
        lost.on_event = lambda event: event.facts.get("step") == "INPUT" and vanishes()
    with federation.aggregator() as rounds:
        running = federation.join()
        collecting = federation.collecting(rounds)
        with pytest.raises(GoneError):
            running[4].result(_PATIENCE_S)
        until(lambda: rounds.awaited == ("bank-e",))
        federation.clock.now += DEADLINE_S
        collected = collecting.result(_PATIENCE_S)
        rounds.finish("finished", "done")
        for other in running[:4]:
            other.result(_PATIENCE_S)
    assert_sum(collected, others if when == "before" else NAMES)
    assert federation.attempts == [0]
    if when == "before":
        assert "no answer to step INPUTS" in collected.lost["bank-e"]


def test_an_aggregator_that_is_started_again_while_keys_come_in_costs_nothing(
    federation,
):
    with federation.aggregator() as rounds:
        running = federation.join(NAMES[:4])
        collecting = federation.collecting(rounds)
        until(lambda: rounds.awaited == ("bank-e",))
        rounds.stop()
        with pytest.raises(RunStoppedError):
            collecting.result(_PATIENCE_S)
    running += federation.join(NAMES[4:])
    with federation.aggregator() as rounds:
        assert_sum(federation.collecting(rounds).result(_PATIENCE_S), NAMES)
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert federation.attempts == [0]
    assert {len(bank.odometer.charged) for bank in federation.banks} == {1}


def test_too_few_keys_within_all_deadlines_are_told_and_cost_nothing(federation):
    with federation.aggregator() as rounds:
        running = federation.join(NAMES[:3])
        collecting = federation.collecting(rounds)
        until(lambda: rounds.awaited == NAMES[3:])
        for number in (1, 2, 3):
            until(lambda n=number: rounds.book.current.num_deadlines == n)
            federation.clock.now += DEADLINE_S
        with pytest.raises(TooFewClientsError, match="Missing: bank-d, bank-e"):
            collecting.result(_PATIENCE_S)
        running += federation.join(NAMES[3:])
        assert_sum(federation.collecting(rounds).result(_PATIENCE_S), NAMES)
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert federation.attempts == [0]


@pytest.mark.parametrize("step", ["INPUT", "UNMASKING"])
def test_a_session_that_a_restart_ended_is_another_attempt_and_paid_for(
    federation, step
):
    """Whatever others have sent, also the shares that open the sum, is of no use."""
    slow, goes_on, said = federation.banks[4], threading.Event(), []
    for bank in federation.banks[:4]:
        bank.on_event = lambda event: said.append(event.facts.get("step"))

    def waits(*given):
        is_moment = step == "INPUT" or given[0].facts.get("step") == "CONSISTENCY"
        assert not is_moment or goes_on.wait(_PATIENCE_S)

    if step == "INPUT":
        slow.work.before_computing = waits
    else:
        slow.on_event = waits
    with federation.aggregator() as rounds:
        running = federation.join()
        collecting = federation.collecting(rounds)
        until(lambda: said.count(step) == 4)
        rounds.stop()
        with pytest.raises(RunStoppedError):
            collecting.result(_PATIENCE_S)
    goes_on.set()
    with federation.aggregator() as rounds:
        collected = federation.collecting(rounds).result(_PATIENCE_S)
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert federation.attempts == [0, 1]
    assert collected.attempt == 1
    assert_sum(collected, NAMES)
    for bank in federation.banks:
        noises = {bank.work.cost(task).noise for task in bank.odometer.charged}
        assert len(noises) == len(bank.odometer.charged) == 2


def test_below_the_threshold_nothing_is_opened_and_the_round_is_tried_again(federation):
    def vanishes(task):
        if task.attempt == 0:
            raise GoneError

    lost = federation.banks[3:]
    for bank in lost:
        bank.work.before_computing = vanishes
    with federation.aggregator() as rounds:
        running = federation.join()
        collecting = federation.collecting(rounds)
        for ended in running[3:]:
            with pytest.raises(GoneError):
                ended.result(_PATIENCE_S)
        until(lambda: rounds.awaited == ("bank-d", "bank-e"))
        federation.clock.now += DEADLINE_S
        running[3:] = federation.join(NAMES[3:])
        collected = collecting.result(_PATIENCE_S)
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert federation.attempts == [0, 1]
    assert_sum(collected, NAMES)


def test_a_partner_that_deals_wrong_shares_is_named_and_left_out(
    federation, monkeypatch, caplog
):
    deals = ClientSession.share_keys

    def deals_badly(self, message):
        upload = DealUpload.FromString(deals(self, message))
        if self._id != "bank-e":
            return encoded(upload)
        deal = Deal.FromString(upload.deal.body)
        for dealt in deal.dealt[:2]:
            dealt.seed_commitment = bytes(32)
        self._own_deal = self._envelope(DEAL, deal)
        return encoded(DealUpload(deal=self._own_deal, boxes=upload.boxes))

    monkeypatch.setattr(ClientSession, "share_keys", deals_badly)
    with federation.aggregator() as rounds:
        running = federation.join()
        collected = federation.collecting(rounds).result(_PATIENCE_S)
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert federation.attempts == [0, 1]
    assert_sum(collected, NAMES[:4])
    assert "bank-e: " in caplog.text
    left = [bank.home.client_id for bank in federation.banks if "left" in bank.said]
    assert left == ["bank-a", "bank-b"]


def test_a_partner_whose_pinned_keys_are_not_the_rosters_sends_nothing(federation):
    careful = federation.banks[0]
    pins = careful.home.pins_path
    with federation.aggregator() as rounds:
        kept = [line for line in pins.read_text().splitlines() if "bank-c" not in line]
        pins.write_text("\n".join(kept))
        collecting = federation.collecting(rounds)
        until(lambda: rounds.awaited)
        with pytest.raises(PolicyError, match="'bank-c' is not the pinned one"):
            careful.run()
        assert rounds.awaited == NAMES
        rounds.stop()
        with pytest.raises(RunStoppedError):
            collecting.result(_PATIENCE_S)
    assert careful.left == []
    assert careful.work.tasks == []


def test_a_partner_sends_nothing_where_the_operator_weakens_the_terms(federation):
    careful, agreed = federation.banks[0], federation.terms.parameters
    federation.terms = federation.terms._replace(
        parameters=replace(agreed, num_colluding=0)
    )
    with federation.aggregator() as rounds:
        collecting = federation.collecting(rounds)
        until(lambda: rounds.awaited)
        with pytest.raises(PolicyError, match=r"for 0 colluding clients.*at least 1"):
            careful.run()
        rounds.stop()
        with pytest.raises(RunStoppedError):
            collecting.result(_PATIENCE_S)
    assert careful.left == []


def test_a_partner_sends_nothing_into_a_session_with_others_than_the_plans(federation):
    # A key that this partner has pinned for another plan; it may be the operator's.
    keys = new_keys(federation.folder / "bank-z")
    key = keys.identity.public_key()
    careful = federation.banks[0]
    federation.terms = federation.terms._replace(
        keys={**federation.terms.keys, "bank-z": key.public_bytes_raw()}
    )
    with federation.aggregator() as rounds:
        with careful.home.pins_path.open("a") as pins:
            pins.write(f'bank-z = "{key_text(key)}"\n')
        call = federation.call(cohort=(*NAMES[:4], "bank-z"))
        collecting = federation.pool.submit(rounds.collect, call)
        until(lambda: rounds.awaited)
        with pytest.raises(PolicyError, match="'bank-z' is not the pinned one"):
            careful.run()
        rounds.stop()
        with pytest.raises(RunStoppedError):
            collecting.result(_PATIENCE_S)
    assert careful.left == []


def test_a_partner_leaves_a_session_whose_weights_change(federation, monkeypatch):
    def changes(plan, run_id, task):
        asked = round_task(plan, run_id, task)
        is_other = task.step == pb.INPUT and plan.sha256 == federation.plan.sha256
        if is_other and threading.get_ident() == careful_thread[0]:
            return asked._replace(broadcast_sha256="0" * 64)
        return asked

    careful_thread = [0]
    careful = federation.banks[4]
    run = careful.run

    def runs():
        careful_thread[0] = threading.get_ident()
        return run()

    monkeypatch.setattr("clients.agent.round_task", changes)
    monkeypatch.setattr(careful, "run", runs)
    with federation.aggregator() as rounds:
        running = federation.join()
        collecting = federation.collecting(rounds)
        until(lambda: rounds.awaited == ("bank-e",) and "left" in careful.said)
        federation.clock.now += DEADLINE_S
        assert_sum(collecting.result(_PATIENCE_S), NAMES[:4])
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
    assert careful.work.tasks == []
    assert careful.odometer.charged == []
