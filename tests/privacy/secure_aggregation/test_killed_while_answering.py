"""A client killed at any moment of its answer never opens both kinds of share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_client.py")


def trials(folder, *arguments, timeout_s=500.0):
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *map(str, arguments)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout_s,
    )
    return json.loads(done.stdout)


def test_killed_at_every_call_that_leaves_a_trace(tmp_path):
    facts = trials(tmp_path, 24, "disk", "points")
    assert (facts["both"], facts["bared"]) == (0, 0)
    # Early deaths leave the round to the second process, late ones do not.
    assert facts["first"] > 0
    assert facts["second"] > 0


def test_without_the_record_on_the_disk_both_kinds_would_be_opened(tmp_path):
    assert trials(tmp_path, 2, "memory") == {
        "first": 2,
        "second": 2,
        "both": 2,
        "bared": 2,
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_a_thousand_times_at_a_random_moment(tmp_path):
    facts = trials(tmp_path, 1000, "disk", timeout_s=3500.0)
    assert (facts["both"], facts["bared"]) == (0, 0)
    assert facts["first"] > 0
    assert facts["second"] > 0
