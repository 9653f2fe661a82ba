"""The README's third command, as a user runs it: real processes, TLS on loopback."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.network]
DEMO = [sys.executable, "-c", "from aggregator.cli import main; main()", "demo"]


def demonstrated(folder, *options):
    """What the demo says of itself, once it has ended well and left no process."""
    environment = {**os.environ}
    environment.pop("FEDTRAIN_DATA_DIR", None)
    done = subprocess.run(
        [*DEMO, "--folder", str(folder), "--format", "json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=840,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (report,) = folder.glob("aggregator-home/runs/*/privacy_report.json")
    assert json.loads(report.read_text())["status"] == "release"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
    assert str(folder) not in listed.stdout
    assert "clients.cli" not in listed.stdout
    return json.loads(done.stdout[done.stdout.rindex("\n{") :])


def test_the_demo_ends_with_a_release_and_leaves_no_process(tmp_path):
    facts = demonstrated(tmp_path / "demo", "--rounds", "2")
    assert facts["folder"] == str(tmp_path / "demo")


@pytest.mark.timeout(900)
def test_the_secure_demo_goes_on_after_a_partner_is_killed(tmp_path):
    facts = demonstrated(tmp_path / "demo", "--secure", "--rounds", "3")
    first, second, third = (one["in the sum"].split(", ") for one in facts["rounds"])
    assert len(first) >= 4
    assert len(second) >= 4
    assert "clinic-e" in third
