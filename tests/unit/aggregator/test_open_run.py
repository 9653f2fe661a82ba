"""Who is waited for at the end: those that are there, and above regions all of them."""

import threading

import pytest
from rich.console import Console

from aggregator.open_run import OpenRun, tell_the_end
from aggregator.traffic import PartnerSeen
from tests.unit.aggregator.light_round import opened

LONG_AGO = PartnerSeen(last_seen_unix_ms=0)


@pytest.fixture
def rounds(tmp_path):
    journal, found = opened(tmp_path)
    found.finish("stopped", "enough")
    yield found
    journal.close()


def tell(rounds, *, regions_s):
    partners = dict.fromkeys(["region-00", "region-01"], LONG_AGO)
    tell_the_end(OpenRun(rounds, partners, None, regions_s), Console(quiet=True))


def test_a_region_that_calls_nobody_while_it_adds_up_is_waited_for(rounds):
    telling = threading.Thread(target=tell, args=[rounds], kwargs={"regions_s": 600.0})
    telling.start()
    rounds.task_for("region-00")
    telling.join(1.0)
    assert telling.is_alive()
    rounds.task_for("region-01")
    telling.join(600)
    assert not telling.is_alive()


def test_nothing_is_waited_for_longer_than_allowed_nor_who_went_away(rounds):
    tell(rounds, regions_s=0.01)
    tell(rounds, regions_s=0.0)
    assert rounds.told_the_end == set()


def test_an_interrupt_ends_the_wait_above_regions_and_nothing_else(rounds, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("aggregator.open_run.time.sleep", interrupted)
    tell(rounds, regions_s=600.0)
    assert rounds.told_the_end == set()
