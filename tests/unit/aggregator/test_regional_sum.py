"""A region's sum as one contribution above: each attempt is made once."""

from types import SimpleNamespace

import numpy as np
import pytest

from aggregator.events import now_ms
from aggregator.open_run import OpenRun
from aggregator.region import _local
from aggregator.regional_sum import NoRows, RegionalSum
from aggregator.rounds import RunStoppedError
from aggregator.traffic import PartnerSeen
from clients.work import NoAnswerError, RoundTask
from fedtrain.core.errors import ConfigError, LedgerError, TooFewClientsError
from fedtrain.project.config import ServiceSection
from tests.unit.aggregator.light_round import Collecting, opened, until
from tests.unit.aggregator.secure_round import (
    CALL,
    NAMES,
    PATIENCE_S,
    TERMS,
    WORDS,
    Partners,
    pb,
)

SERVICE = ServiceSection(
    clients=list(NAMES), rows_per_client=1, deadline_s=1000.0, max_deadlines=1
)
PLAN = SimpleNamespace(contribution=CALL.contribution)
STEPS = (pb.KEYS, pb.SHARES, pb.INPUT, pb.CONSISTENCY, pb.UNMASKING)


@pytest.fixture
def rounds(tmp_path, monkeypatch):
    monkeypatch.setattr("aggregator.collector._POLL_S", 0.01)
    journal, found = opened(tmp_path)
    yield found
    found.stop()
    journal.close()


@pytest.fixture
def work(rounds):
    return RegionalSum(rounds, plan=PLAN, secure=TERMS, service=SERVICE)


def events(rounds):
    return rounds.book._journal.events()


def asked(round_number=0, attempt=0):
    return RoundTask("run", round_number, attempt, "train", "ab" * 32, {})


def computed(work, task):
    """The sum of all three partners."""
    computing = Collecting(_Collects(work), task)
    partners = Partners(work._rounds)
    for step in STEPS:
        partners.answer(step)
    return computing.done()


class _Collects:
    """Looks like ``Rounds`` to ``Collecting``."""

    def __init__(self, work):
        self.collect = lambda task: work.compute(task, CALL.broadcast)
        self.book = work._rounds.book


def test_the_answer_is_the_regions_sum_and_costs_nothing_here(work, rounds):
    (found,) = computed(work, asked(attempt=3))
    np.testing.assert_array_equal(found, np.full(WORDS, 1 + 2 + 3, np.uint32))
    assert rounds.book.find("train", 0).attempt == 3
    assert work.cost(asked()) is None
    # The same attempt again asks nobody and gives the same sum.
    (again,) = work.compute(asked(attempt=3), CALL.broadcast)
    np.testing.assert_array_equal(again, found)
    computed(work, asked(attempt=4))
    why = [e.draft.body["why"] for e in events(rounds) if e.draft.kind == "aborted"]
    assert why == ["the aggregator above has begun another attempt"]
    (later,) = computed(work, asked(round_number=1))
    np.testing.assert_array_equal(later, found)
    assert rounds.book.find("train", 0).stage == "committed"


def test_an_attempt_that_gave_no_sum_is_not_made_again(work, rounds):
    computing = Collecting(_Collects(work), asked())
    partners = Partners(rounds)
    for step in STEPS[:2]:
        partners.answer(step)
    until(lambda: rounds.task_for("ada").step == pb.INPUT, PATIENCE_S)
    rounds._desk.steps.failed = dict.fromkeys(NAMES, "it is gone")
    with pytest.raises(NoAnswerError, match=r"made once: .*INPUTS"):
        computing.done()
    with pytest.raises(NoAnswerError, match="Attempt 0 at round 0 was made here"):
        work.compute(asked(), CALL.broadcast)
    assert rounds.book.find("train", 0).stage == "aborted"
    (found,) = computed(work, asked(attempt=1))
    np.testing.assert_array_equal(found, np.full(WORDS, 6, np.uint32))


def test_a_region_started_again_in_the_middle_has_lost_the_attempt(tmp_path):
    journal, rounds = opened(tmp_path)
    work = RegionalSum(rounds, plan=PLAN, secure=TERMS, service=SERVICE)
    computing = Collecting(_Collects(work), asked())
    partners = Partners(rounds)
    for step in STEPS[:2]:
        partners.answer(step)
    until(lambda: rounds.task_for("ada").step == pb.INPUT, PATIENCE_S)
    rounds.stop()
    with pytest.raises(RunStoppedError):
        computing.done()
    journal.close()
    journal, rounds = opened(tmp_path)
    again = RegionalSum(rounds, plan=PLAN, secure=TERMS, service=SERVICE)
    with pytest.raises(NoAnswerError, match="was made here"):
        again.compute(asked(), CALL.broadcast)
    assert rounds.task_for("ada").kind == pb.WAIT
    journal.close()


class Failing:
    """Rounds in which too few answer, while ``fails``."""

    book = SimpleNamespace(find=lambda kind, number: None)
    fails = True

    def collect(self, call):
        if self.fails:
            raise TooFewClientsError("Too few.")
        return SimpleNamespace(total=list)


def test_a_region_that_fails_again_and_again_rests_before_it_joins_another_attempt():
    now = [0.0]
    rounds = Failing()
    work = RegionalSum(
        rounds, plan=PLAN, secure=TERMS, service=SERVICE, clock=lambda: now[0]
    )

    def rest_after_failure():
        with pytest.raises(NoAnswerError):
            work.compute(asked(), [])
        found = work.rests().partition("the next one in ")[2]
        now[0] += float(found.removesuffix(" s") or 0)
        assert work.rests() == ""
        return found

    rests = [rest_after_failure() for _ in range(8)]
    assert rests[:4] == ["", "1000 s", "2000 s", "4000 s"]
    assert set(rests[4:]) == {"8000 s"}
    rounds.fails = False
    work.compute(asked(), [])
    rounds.fails = True
    assert rest_after_failure() == ""


def test_who_dealt_wrong_shares_is_not_counted_among_those_who_are_here(work):
    ready = PartnerSeen(now_ms(), status="ready")
    rounds = SimpleNamespace(guilty=frozenset())
    stopper = SimpleNamespace(request=None)
    here = OpenRun(rounds, dict.fromkeys(NAMES, ready), stopper)
    local = _local(work, TERMS, here)
    assert local.waits_for() == ""
    rounds.guilty = frozenset(NAMES[:1])
    least = TERMS.parameters.threshold
    assert local.waits_for() == f"2 of at least {least} partners are here"


def test_another_run_is_refused_before_a_session_is_joined(work):
    with pytest.raises(ConfigError, match="The run other is served above"):
        work.cost(asked()._replace(run_id="other"))


def test_who_has_no_rows_is_charged_nothing(work):
    odometer = NoRows()
    with pytest.raises(LedgerError, match="no rows to charge"):
        odometer.charge(asked(), None, max_epsilon=1.0)
    assert (odometer.spent(), odometer.head()["length"]) == ({}, 0)
    assert not work.has_ended
    work.forget()
    assert work.has_ended
