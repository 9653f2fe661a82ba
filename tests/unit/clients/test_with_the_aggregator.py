"""Agents and the real aggregator, in one process over TLS, without TensorFlow."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from light_work import Bank, LightWork

from aggregator.audit import partner_heads
from aggregator.audit_heads import check_heads
from aggregator.authority import Terms
from aggregator.calls import Served
from aggregator.journal import Journal, stored_events
from aggregator.rounds import RoundCall, Rounds
from aggregator.server import Server, serving
from clients.audit import Head, entries, verify
from clients.calls import RefusedError

pytestmark = pytest.mark.network
NAMES = ("bank-a", "bank-b", "bank-c")


class SteadyWork(LightWork):
    """Adds its own number to the broadcast: the sum says who took part."""

    def __init__(self, number):
        super().__init__()
        self.number = np.float32(number)

    def compute(self, task, broadcast):
        self.tasks.append(task)
        return [array + self.number for array in broadcast]


def round_call(plan, number, *, goal):
    weights = [np.full(spec.shape, number, np.float32) for spec in plan.broadcast]
    return RoundCall(
        run_id="run",
        round_number=number,
        kind="train",
        cohort=NAMES,
        report_goal=goal,
        least_reports=goal,
        deadline_s=120.0,
        max_deadlines=1,
        broadcast=weights,
        contribution=plan.contribution,
        info={},
    )


@pytest.fixture
def served(tmp_path, authority, plan):
    """Rounds behind a real port, and three banks that know it."""
    rounds = Rounds(
        Journal(tmp_path / "journal"),
        run_id="run",
        plan_sha256=plan.sha256,
        folder=tmp_path / "spool",
    )
    server = Server(Served(rounds, authority, plan.canonical()), address="127.0.0.1:0")
    with serving(server) as port:
        terms = Terms(plan, f"127.0.0.1:{port}", "localhost")
        banks = [Bank.admitted(tmp_path / name, authority, terms) for name in NAMES]
        for number, bank in enumerate(banks, 1):
            bank.work = SteadyWork(number)
        with ThreadPoolExecutor(len(banks)) as pool:
            yield rounds, banks, pool
            rounds.finish("stopped", "the test is over")


def test_three_partners_and_the_aggregator_carry_out_a_run(
    served, plan, authority, tmp_path
):
    rounds, banks, pool = served
    running = [pool.submit(bank.run) for bank in banks]
    for number in range(3):
        collected = rounds.collect(round_call(plan, number, goal=3))
        expected = [np.full(s.shape, 3 * number + 6.0) for s in plan.contribution]
        for found, sum_of_all in zip(collected.total(), expected, strict=True):
            np.testing.assert_array_equal(found, sum_of_all)
        rounds.committed(number, "ab" * 32)
    rounds.finish("finished", "done")
    for ended in running:
        ended.result(120)
    assert [bank.left for bank in banks] == [["sending", "accepted"] * 3] * 3
    assert [len(bank.work.tasks) for bank in banks] == [3, 3, 3]
    service = SimpleNamespace(database=None)
    (tmp_path / "run.json").write_text('{"run_id": "run"}')
    journal = tmp_path / "journal"
    kept = SimpleNamespace(path=tmp_path, journal=journal, service=lambda: service)
    proven = check_heads(stored_events(journal), authority.partners())
    assert proven.startswith("9 heads")
    for bank, told in zip(banks, partner_heads(kept), strict=True):
        log = bank.home.audit_path
        assert told["signed"]
        length, _, hash_ = told["head"].partition(":")
        verify(log, Head(int(length), hash_))
        *_, sending, accepted = entries(log)
        assert (sending["hash"], accepted["what"]) == (hash_, "accepted")


def test_a_revoked_partner_ends_and_the_others_go_on(served, plan, authority):
    rounds, banks, pool = served
    running = [pool.submit(bank.run) for bank in banks]
    rounds.collect(round_call(plan, 0, goal=3))
    authority.revoke("bank-b")
    collected = rounds.collect(round_call(plan, 1, goal=2))
    rounds.finish("finished", "done")
    assert collected.accepted == ("bank-a", "bank-c")
    with pytest.raises(RefusedError, match="was revoked"):
        running[1].result(120)
    for index in (0, 2):
        running[index].result(120)
