import json
import signal
import subprocess
import sys

import pytest
from light_work import LightOdometer, LightWork

from aggregator.authority import Terms
from clients import cli
from clients.agent import Local
from fedtrain.cli.program import run_program
from fedtrain.wire.enrolment import read_request

pytestmark = pytest.mark.network
MAIN = "from clients.cli import main; main()"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command; gives its exit code and what it printed."""
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def ran(*arguments):
        code = run_program(cli.app, "fedtrain-client", [str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return ran


@pytest.fixture
def as_json(run):
    def ran(*arguments):
        code, output = run(*arguments, "--format", "json")
        return code, json.loads(output)

    return ran


@pytest.fixture
def invited(run, tmp_path, authority, aggregator, plan):
    """bank-b asked by the command line, and was admitted: its invitation's file."""

    def admitted(changed=plan):
        assert run("request", "bank-b")[0] == 0
        asked = read_request(tmp_path / "bank-b.request")
        terms = Terms(changed, f"127.0.0.1:{aggregator.port}", "localhost")
        path = tmp_path / "bank-b.invitation"
        path.write_bytes(authority.admit(asked, terms).to_bytes())
        return path

    return admitted


@pytest.fixture
def light(monkeypatch, tmp_path):
    """Rows that need no TensorFlow stand for those in --data."""
    (tmp_path / "rows.csv").write_text("a\n1\n")
    work, odometer = LightWork(), LightOdometer()

    def rows(data, home, *, tell):
        return Local(
            work_of=lambda plan: work,
            odometer_of=lambda plan: odometer,
            tell=tell,
            pause=lambda seconds: None,
        )

    monkeypatch.setattr(cli, "local_rows", rows)
    return work


def test_from_request_to_a_finished_run(
    run, as_json, invited, light, aggregator, tmp_path
):
    path = invited()
    assert (tmp_path / "state" / "clients" / "bank-b").stat().st_mode & 0o777 == 0o700
    code, output = run("review", path)
    assert code == 0
    assert "epsilon 2 at delta 1e-05" in output
    code, reviewed = as_json("review", path)
    assert (reviewed["approved"], reviewed["violations"]) == (False, [])
    code, approved = as_json("approve", path)
    assert approved["approved"] == reviewed["plan_sha256"]
    code, checked = as_json("check", path, "--data", "rows.csv")
    assert [row["check"] for row in checked] == [
        "certificate",
        "policy",
        "data",
        "one round",
        "epsilon so far",
    ]
    assert not aggregator.said
    code, output = run("join", path, "--data", "rows.csv", "--format", "json")
    events = [json.loads(line)["event"] for line in output.splitlines()]
    assert (code, events[0], events[-1]) == (0, "connected", "finished")
    assert sorted(aggregator.taken) == [0, 1]
    code, found = as_json("audit", "verify", "bank-b")
    assert (code, found["length"]) == (0, 4)
    assert "accepted" in run("audit", "show", "bank-b")[1]
    code, policy = as_json("policy", "show", "bank-b")
    assert policy["approved_plans"] == [approved["approved"]]


def test_a_new_certificate_on_demand(as_json, invited, aggregator):
    code, found = as_json("renew", invited())
    assert (code, aggregator.said) == (0, ["Renew"])
    assert found["valid_until"]


def test_a_plan_that_needs_more_trust_is_not_approved_by_itself(run, invited, plan):
    exact = plan.privacy.model_copy(update={"trust": "central"})
    path = invited(plan.model_copy(update={"privacy": exact}))
    code, output = run("approve", path)
    assert (code, "allowed_trust" in output) == (15, True)
    code, output = run("approve", path, "--allow-central")
    assert (code, "with an editor" in output) == (15, True)
    assert run("policy", "show", "bank-b")[1].count(plan.sha256) == 0


def test_no_privacy_is_approved_by_saying_so(run, invited, plan):
    path = invited(plan.model_copy(update={"privacy": None}))
    assert run("approve", path, "--max-epsilon", "inf")[0] == 0


def test_errors_have_their_codes(run, as_json, invited, tmp_path):
    code, output = run("review", "none.invitation")
    assert (code, "cannot be read" in output) == (11, True)
    path = invited()
    code, output = run("join", path, "--data", "none.csv")
    assert (code, "no such file" in output) == (2, True)
    code, output = run("join", path, "--data", path, "--home", tmp_path / "elsewhere")
    assert (code, "cannot be read" in output) == (11, True)
    code, output = as_json("policy", "show", "bank-b")
    assert (code, output["exit_code"]) == (2, 2)
    assert run("audit", "verify", "bank-b")[0] == 5
    path.write_bytes(path.read_bytes().replace(b"bank-b", b"bank-c"))
    code, output = run("approve", path)
    assert (code, "was changed" in output) == (11, True)


def test_a_path_that_cannot_be_used_is_named(run, as_json, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = run("request", "bank-b", "--home", tmp_path / "file")
    assert code == 2
    assert "file cannot be used: File exists" in " ".join(output.split())
    assert "Traceback" not in output
    nowhere = tmp_path / "nowhere" / "bank-b.request"
    code, found = as_json("request", "bank-b", "--output", nowhere)
    assert code == 2
    assert "No such file or directory" in found["error"]["message"]


def test_a_real_process_waits_for_approval_and_ends_when_asked(
    invited, tmp_path, aggregator
):
    (tmp_path / "rows.csv").write_text("a\n1\n")
    command = [sys.executable, "-c", MAIN, "join", invited(), "--data", "rows.csv"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stderr.readline(), process.stderr.readline()]
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(30) == 130
    assert "Connected" in lines[0]
    assert "not approved this plan" in lines[1]
    assert "Start it again to go on" in rest
