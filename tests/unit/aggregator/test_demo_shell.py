"""Who of a demo's programs has to end well."""

import subprocess
import sys

import pytest

from aggregator import demo_shell
from aggregator.demo_shell import DemoFailedError, Shell


def test_a_program_that_may_be_late_fails_no_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_shell, "_GRACE_S", 0.1)
    shell = Shell(tmp_path)
    asleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(asleep) as process:
        shell._beside["clinic-e"] = process
        shell.wait(may_be_late="clinic-e")
        with pytest.raises(DemoFailedError, match="clinic-e did not end well"):
            shell.wait()
        process.kill()
