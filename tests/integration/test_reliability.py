"""Light federations under random faults end as they do without any.

A busy machine may be slow: a run fails if its end is wrong, or if nothing at all has
gone on in it for eight minutes.
"""

import pytest

from simulations.reliability.run import trials

pytestmark = [pytest.mark.network, pytest.mark.timeout(3000)]


def _problems(outcomes):
    return [outcome for outcome in outcomes if outcome.problem]


def test_runs_under_random_faults_end_as_without_faults():
    assert _problems(trials((3, 8), num_faults=5)) == []


@pytest.mark.slow
def test_more_runs_under_random_faults_end_as_without_faults():
    assert _problems(trials(range(100, 125), num_faults=8)) == []
