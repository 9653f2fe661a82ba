"""An aggregator that is killed in the middle of a session; all are real processes."""

import contextlib
import time

import pytest

from aggregator.demo_data import CLINICS
from aggregator.demo_secure import enrolled, is_computing, joined, what_was_seen
from aggregator.home import federation_in

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.mark.timeout(900)
def test_a_killed_aggregator_goes_on_with_another_attempt(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDTRAIN_DATA_DIR", raising=False)
    shell = enrolled(tmp_path, num_rounds=2, epsilon=8.0, wait_s=120.0)
    with contextlib.ExitStack() as stack:
        for partner in CLINICS:
            stack.enter_context(joined(shell, partner))
        serve = ("fedtrain-aggregator", "serve")
        with shell.background("serve", *serve):
            until(lambda: is_computed(shell, CLINICS[0], 0))
            shell.kill("serve")
        shell.run(*serve)
        shell.wait()
    seen = what_was_seen(federation_in(tmp_path / "aggregator-home"))["rounds"]
    attempts = [(one["round"], one["attempt"]) for one in seen]
    # Where a slow machine let the first session end before the kill, none was repeated.
    assert attempts in ([(1, 1), (2, 0)], [(1, 0), (2, 0)], [(1, 0), (2, 1)])
    for one in seen:
        assert len(one["in the sum"].split(", ")) >= 4
    sent = {partner: num_sent(shell, partner) for partner in CLINICS}
    assert set(sent.values()) <= {2, 3}


def is_computed(shell, partner, round_number):
    return any(is_computing(line, round_number) for line in shell.heard(partner))


def num_sent(shell, partner):
    """How many masked contributions a partner was told to be taken."""
    return sum('"step": "INPUT"' in line for line in shell.heard(partner))


def until(condition):
    give_up = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
