import json
import logging
import threading

import pytest

from aggregator import stopping
from aggregator.home import Federation as Home
from aggregator.logs import LogFormat, log_to_stderr
from aggregator.rounds import RunStoppedError
from aggregator.stopping import stop_run, watched
from fedtrain.core.errors import ConfigError
from fedtrain.wire import messages_pb2 as pb
from tests.unit.aggregator.kept_federation import PROJECT, kept
from tests.unit.aggregator.light_round import Collecting, call, opened


@pytest.fixture
def served(tmp_path):
    """An operator's folder whose journal is in use, as while it is served."""
    home = Home(tmp_path, tmp_path / "federation.toml", "Test")
    home.project.write_text(PROJECT)
    (tmp_path / "run.json").write_text('{"run_id": "run"}')
    journal, rounds = opened(tmp_path)
    (tmp_path / "state").rename(tmp_path / "journal")
    yield home, rounds
    rounds.stop()
    journal.close()


def stopped(home, *, is_final):
    said = []

    def ask():
        said.append(stop_run(home, "enough", is_final=is_final, wait_s=600.0))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, said


@pytest.mark.parametrize("is_final", [True, False])
def test_a_request_ends_the_waiting_of_a_served_run(served, is_final):
    home, rounds = served
    collecting = Collecting(rounds, call(["bank-a", "bank-b"]))
    with watched(home, rounds) as stopper:
        thread, said = stopped(home, is_final=is_final)
        with pytest.raises(RunStoppedError):
            collecting.done()
        assert stopper.request == ("run", "enough", is_final)
    thread.join(600)
    assert ("not resumable" in said[0]) == is_final


def test_no_round_opens_once_a_stop_was_asked_for(served):
    _, rounds = served
    rounds.stop()
    rounds.finish("stopped", "enough")
    with pytest.raises(RunStoppedError):
        rounds.collect(call(["bank-a"]))
    assert rounds.book.ending.status == "stopped"
    task = rounds.task_for("bank-a")
    assert (task.kind, task.text) == (pb.STOPPED, "enough")
    assert rounds.told_the_end == {"bank-a"}


def test_there_must_be_a_run(tmp_path):
    home = Home(tmp_path, tmp_path / "federation.toml", "Test")
    with pytest.raises(ConfigError, match="no run yet"):
        stop_run(home, "enough", is_final=True)


@pytest.fixture
def _loggers_as_before():
    names = ("aggregator", "fedtrain")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for one, (handlers, level, propagate) in zip(loggers, before, strict=True):
        one.handlers[:], one.level, one.propagate = handlers, level, propagate


@pytest.mark.usefixtures("_loggers_as_before")
def test_log_is_one_json_object_a_line_without_hashes(served, capsys):
    _, rounds = served
    log_to_stderr(LogFormat.json)
    rounds.finish("stopped", "enough\nfor today")
    collecting = Collecting(rounds, call(["bank-a"]))
    rounds.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == [
        "finished",
        "planned",
        "configured",
        "collecting",
    ]
    assert {line["run_id"] for line in lines} == {"run"}
    assert "sha256" not in json.dumps(lines)


@pytest.mark.usefixtures("_loggers_as_before")
def test_log_for_people_says_what_changed(served, capsys):
    _, rounds = served
    log_to_stderr(LogFormat.text)
    collecting = Collecting(rounds, call(["bank-a"]))
    rounds.stop()
    with pytest.raises(RunStoppedError):
        collecting.done()
    assert "round 1: open: waiting for contributions" in capsys.readouterr().err


def test_a_kill_while_the_last_weights_are_written_leaves_the_run_to_be_ended(
    tmp_path, monkeypatch
):
    home = kept(tmp_path)

    def killed(federation, request):
        raise KeyboardInterrupt

    monkeypatch.setattr(stopping, "_written", killed)
    with pytest.raises(KeyboardInterrupt):
        stop_run(home, "enough", is_final=True)
    monkeypatch.setattr(stopping, "_written", lambda federation, request: "Written.")
    said = stop_run(home, "enough", is_final=True)
    assert "has ended, not resumable" in said
    assert said.endswith("Written.")
    with pytest.raises(ConfigError, match="has ended already"):
        stop_run(home, "enough", is_final=True)
