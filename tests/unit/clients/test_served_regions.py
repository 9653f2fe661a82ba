"""Rounds over two levels between real agents and aggregators, over mutual TLS."""

import json
import signal
import threading

import numpy as np
import pytest
from regional_banks import (
    DEADLINE_S,
    NAMES,
    REGIONS,
    Beside,
    Regions,
    members_of,
    sum_of,
)
from test_secure_rounds import until

from aggregator.audit import audit as audit_of_operator
from aggregator.cli import main as operator
from aggregator.home import note_run
from aggregator.open_run import _regions_s
from aggregator.page_state import Shown, page_state
from aggregator.rounds import RunStoppedError
from aggregator.standing import standing
from aggregator.stopping import stop_run
from clients import audit
from clients.cli import main as client
from fedtrain.core.errors import StoppedError
from fedtrain.project.secure_session import TOP
from fedtrain.wire.enrolment import EnrolmentRequest

pytestmark = pytest.mark.network
_PATIENCE_S = 500.0  # pytest itself ends a test after 600


REGION_DEADLINE_S = DEADLINE_S / 10


class GoneError(Exception):
    """A partner's process ends here."""


@pytest.fixture
def regions(tmp_path, monkeypatch):
    found = Regions(tmp_path)
    monkeypatch.setattr("aggregator.open_run.Rounds", found.clocked)
    # However slow the machine is: who has called is here, and is told of the end.
    monkeypatch.setattr("aggregator.open_run._TELL_S", _PATIENCE_S)
    monkeypatch.setattr("aggregator.open_run._HERE_S", 10 * _PATIENCE_S)
    return found


def assert_sum(collected, names, round_number=0):
    (found,) = collected.total()
    assert collected.accepted == REGIONS
    expected = sum_of(names, round_number, collected.attempt)
    np.testing.assert_array_equal(found, expected)


def test_every_round_gives_the_top_the_sum_of_all_and_each_region_its_own(regions):
    with regions.above() as rounds:
        below = [regions.region(name) for name in REGIONS]
        running = regions.join()
        for number in range(2):
            collected = regions.collecting(rounds, number).result(_PATIENCE_S)
            assert_sum(collected, NAMES, number)
            rounds.committed(number, "ab" * 32)
        rounds.finish("finished", "done")
        for ended in [*running, *below]:
            ended.result(_PATIENCE_S)
    assert regions.attempts == [0, 0]
    for party in [*regions.banks.values(), *regions.regions.values()]:
        assert party.left == ["sending", "accepted", "confirming"] * 2
        audit.verify(party.home.audit_path)
    for bank in regions.banks.values():
        assert len(bank.odometer.charged) == 2
    for name, federation in regions.federations.items():
        checks = audit_of_operator(federation)
        assert [one.what for one in checks] == ["journal", "partners' logs"]
        assert all(one.ok for one in checks)
        shown = Shown(
            federation, regions.plan, federation.authority(), regions.below[name], {}
        )
        listed = [one["client_id"] for one in page_state(shown)["partners"]]
        assert listed == list(members_of(name))
        (kept,) = federation.spool.glob("train-1*/*")  # the sum of the last round
        found = np.frombuffer(kept.read_bytes(), np.uint32)
        np.testing.assert_array_equal(found, sum_of(members_of(name), 1))


def vanishes(*_):
    raise GoneError


def has_noted(party, what):
    """Whether it is in the party's audit log, which may be being written to."""
    path = party.home.audit_path
    return path.exists() and f'"what":"{what}"' in path.read_text()


def lost_while_computing(regions, rounds, name, running):
    """Until the bank is gone, its region waits for nobody else, nor does the top."""
    with pytest.raises(GoneError):
        running[NAMES.index(name)].result(_PATIENCE_S)
    (region,) = (one for one in REGIONS if name in members_of(one))
    until(lambda: regions.below[region].awaited == (name,))
    until(lambda: rounds.awaited == (region,))
    regions.clock.now += REGION_DEADLINE_S


def test_a_partner_that_a_region_can_spare_is_left_out_of_its_sum(regions):
    regions.banks["bank-d"].work.before_computing = vanishes
    with regions.above() as rounds:
        below = [regions.region(name) for name in REGIONS]
        running = regions.join()
        collecting = regions.collecting(rounds)
        lost_while_computing(regions, rounds, "bank-d", running)
        others = [name for name in NAMES if name != "bank-d"]
        assert_sum(collecting.result(_PATIENCE_S), others)
        running[3:4] = regions.join(["bank-d"])  # and is told of the end, too
        rounds.finish("finished", "done")
        for ended in [*running, *below]:
            ended.result(_PATIENCE_S)
    assert regions.attempts == [0]


def test_a_region_started_again_after_the_end_tells_partners_that_it_knows_of(regions):
    federation = regions.federations["region-02"]
    partners = members_of("region-02")
    long_ago = {name: {"last_seen_unix_ms": 0} for name in partners}
    federation.seen.write_text(json.dumps(long_ago))
    note_run(federation, "run")
    with regions.above() as rounds:
        rounds.finish("finished", "done")
        region = regions.region("region-02")
        until(lambda: "region-02" in regions.below)
        until(lambda: regions.below["region-02"].book.ending is not None)
        for ended in regions.join(partners):
            ended.result(_PATIENCE_S)
        region.result(_PATIENCE_S)


def test_a_region_without_a_sum_costs_an_attempt_and_asks_nobody_twice(regions):
    regions.banks["bank-e"].work.before_computing = vanishes
    with regions.above() as rounds:
        below = [regions.region(name) for name in REGIONS]
        running = regions.join()
        collecting = regions.collecting(rounds)
        lost_while_computing(regions, rounds, "bank-e", running)
        until(lambda: has_noted(regions.regions["region-01"], "left"))
        until(lambda: rounds.awaited == ("region-01",))
        regions.banks["bank-e"].work.before_computing = lambda task: None
        running[4:5] = regions.join(["bank-e"])
        regions.clock.now += DEADLINE_S
        collected = collecting.result(_PATIENCE_S)
        assert_sum(collected, NAMES)
        rounds.finish("stopped", "enough")
        for ended in [*running, *below]:
            with pytest.raises(StoppedError, match="enough"):
                ended.result(_PATIENCE_S)
    assert regions.attempts == [0, collected.attempt] == [0, 1]
    for bank in regions.banks.values():
        # What is charged is a session: the sums of both attempts have other noise.
        sessions = [task.session for task in bank.odometer.charged]
        attempts = [task.attempt for task in bank.odometer.charged]
        assert len(set(sessions)) == len(sessions)
        assert attempts in ([0, 1], [1])
    assert regions.regions["region-01"].left.count("sending") == 1


@pytest.fixture
def start(regions):
    """Starts a regional aggregator as a process, which ends with the test."""
    processes = []

    def started(name):
        processes.append(regions.region_process(name))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_regional_aggregator_killed_in_the_middle_answers_the_next_attempt(
    regions, start, when
):
    asked, goes_on = threading.Event(), threading.Event()

    def waits(task):
        asked.set()
        goes_on.wait(_PATIENCE_S)

    # It is killed before or after its masked sum has left.
    late = {"before": "bank-e", "after": "bank-a"}[when]
    regions.banks[late].work.before_computing = waits
    with regions.above() as rounds:
        killed = start("region-01")
        below = [regions.region(name) for name in ("region-00", "region-02")]
        running = [*regions.join(), *below]
        collecting = regions.collecting(rounds)
        until(asked.is_set)
        if when == "after":
            until(lambda: has_noted(regions.regions["region-01"], "accepted"))
        killed.kill()
        assert killed.wait(60) == -signal.SIGKILL
        goes_on.set()
        until(lambda: rounds.awaited == ("region-01",))
        again = start("region-01")
        regions.clock.now += DEADLINE_S
        assert_sum(collecting.result(_PATIENCE_S), NAMES)
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(_PATIENCE_S)
        assert again.wait(_PATIENCE_S) == 0
    assert regions.attempts == [0, 1]
    assert_each_attempt_was_answered_once(regions)
    sent = regions.regions["region-01"].left.count("sending")
    assert sent == {"before": 1, "after": 2}[when]


def assert_each_attempt_was_answered_once(regions):
    (round_,) = standing(regions.federations["region-01"])["rounds"]
    assert (round_["attempt"], round_["stage"]) == (1, "closed")
    for name in members_of("region-01"):
        left = audit.entries(regions.banks[name].home.audit_path)
        attempts = [one["attempt"] for one in left if one["what"] == "sending"]
        assert attempts == sorted(set(attempts))


def test_a_region_waits_for_its_partners_and_tells_them_of_its_end(regions):
    with regions.above() as rounds:
        region = regions.region("region-02")
        running = regions.join(members_of("region-02")[:2])
        collecting = regions.collecting(rounds)
        until(lambda: regions.said("region-02") == "2 of at least 3 partners are here")
        assert rounds.awaited == REGIONS
        federation = regions.federations["region-02"]
        stopping = Beside(stop_run, federation, "we leave", is_final=True)
        with pytest.raises(StoppedError, match="ended this region: we leave"):
            region.result(_PATIENCE_S)
        for ended in running:
            with pytest.raises(StoppedError, match="we leave"):
                ended.result(_PATIENCE_S)
        stopping.result(_PATIENCE_S)
        rounds.stop()
        with pytest.raises(RunStoppedError):
            collecting.result(_PATIENCE_S)
    assert regions.regions["region-02"].left == []


def test_a_region_may_be_ended_while_nobody_answers_above(regions):
    federation = regions.federations["region-02"]
    note_run(federation, "run")
    region = regions.region("region-02")
    until(lambda: "region-02" in regions.below)
    stopping = Beside(stop_run, federation, "we leave", is_final=True)
    with pytest.raises(StoppedError, match="ended this region: we leave"):
        region.result(_PATIENCE_S)
    stopping.result(_PATIENCE_S)
    with pytest.raises(StoppedError, match="The run has ended: we leave"):
        regions.region("region-02").result(_PATIENCE_S)


def test_the_top_alone_waits_for_regions_at_the_end(regions):
    below = regions.federations["region-00"]
    assert _regions_s(below) == 0.0
    assert _regions_s(below._replace(region=TOP)) == below.service().deadline_s


NOT_FOR_A_REGION = [
    (client, "join region-00.invitation --data x.csv", "it has no rows"),
    (operator, "serve --home region-00-home", "region serve"),
    (
        operator,
        "region serve region-00.invitation --home region-01-home",
        "region-01-home is of region-01",
    ),
    (
        operator,
        "region init bank-a.invitation --home new",
        "not for a regional aggregator",
    ),
    (operator, "region init region-00.invitation --home new --page 81", "service.page"),
    (
        operator,
        "admit bank-e.request --yes --home region-00-home",
        "bank-a, bank-b, bank-c, bank-d",
    ),
]


def test_what_is_not_for_a_region_is_refused(regions, monkeypatch, capsys):
    monkeypatch.chdir(regions.folder)
    for party in (regions.regions["region-00"], regions.banks["bank-a"]):
        name = party.home.client_id
        (regions.folder / f"{name}.invitation").write_bytes(party.invitation.to_bytes())
    keys = regions.banks["bank-e"].home.keys()
    asked = EnrolmentRequest.of("bank-e", keys)
    (regions.folder / "bank-e.request").write_bytes(asked.to_bytes())
    for program, command, why in NOT_FOR_A_REGION:
        with pytest.raises(SystemExit) as stop:
            program(command.split())
        assert stop.value.code == 2
        assert why in " ".join(capsys.readouterr().err.split())
    assert not (regions.folder / "new").exists()
