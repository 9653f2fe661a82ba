"""The README's third command, as a user runs it: real processes, TLS on loopback."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.network]
DEMO = [sys.executable, "-c", "from aggregator.cli import main; main()", "demo"]


def test_the_demo_ends_with_a_release_and_leaves_no_process(tmp_path):
    folder = tmp_path / "demo"
    environment = {**os.environ}
    environment.pop("FEDTRAIN_DATA_DIR", None)
    done = subprocess.run(
        [*DEMO, "--folder", str(folder), "--rounds", "2", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout[done.stdout.rindex("{") :])["folder"] == str(folder)
    (report,) = folder.glob("aggregator-home/runs/*/privacy_report.json")
    assert json.loads(report.read_text())["status"] == "release"
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
    assert str(folder) not in listed.stdout
    assert "clients.cli" not in listed.stdout
