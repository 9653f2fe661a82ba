"""The ``fedtrain`` command as a user runs it, with real files and real signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedtrain.cli.main import run as run_command
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.data.packed import pack

FEDTRAIN = [sys.executable, "-c", "from fedtrain.cli.main import main; main()"]
# The embedded example, but so small that a run takes a second.
SMALL = [
    "data.num_clients=4",
    "evaluation.baselines=false",
    "tracking.tensorboard=false",
    "tracking.html_report=false",
]


class Done(NamedTuple):
    output: str
    errors: str

    def json(self) -> Any:
        return json.loads(self.output)


class CommandLine:
    """Runs the command in this process, within one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str, expect: int = 0) -> Done:
        self._capsys.readouterr()
        code = run_command(arguments)
        done = Done(*self._capsys.readouterr())
        assert code == expect, done.errors
        return done


@pytest.fixture
def fedtrain(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(tmp_path, capsys)


def settings(*more: str) -> list[str]:
    return [word for setting in (*SMALL, *more) for word in ("-s", setting)]


def process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*FEDTRAIN, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job is started deaf to Ctrl-C, and its children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_rounds(folder: Path, num_rounds: int) -> Path:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for metrics in (folder / "runs").glob("*/metrics.jsonl"):
            if len(metrics.read_bytes().splitlines()) >= num_rounds:
                return metrics.parent
        time.sleep(0.01)
    raise AssertionError("the run did not get going")


def assert_same_bits(left: Path, right: Path) -> None:
    with np.load(left / "weights.npz") as ours, np.load(right / "weights.npz") as other:
        assert set(ours) == set(other)
        for name in ours:
            assert ours[name].tobytes() == other[name].tobytes(), name


def test_run_leaves_everything_and_a_quiet_terminal(
    tmp_path: Path, fedtrain: CommandLine
) -> None:
    few = ["-s", "data.num_clients=4", "-s", "rounds.num_rounds=3"]
    output, errors = process(
        tmp_path, "simulate", *few, "--format", "json"
    ).communicate(timeout=300)
    summary = json.loads(output)
    words = ("tensorflow/", "WARNING", "Warning", "oneDNN", "cuda")
    assert not [word for word in words if word in errors], errors
    run = tmp_path / summary["run"]
    assert {path.name for path in run.iterdir()} >= {
        "federation.toml", "run.json", "checkpoints", "weights.npz", "metrics.jsonl",
        "privacy_report.json", "ledger.jsonl", "tensorboard", "report.html",
        "summary.json",
    }  # fmt: skip
    assert [row["name"] for row in summary["comparison"]] == [
        "federated, with privacy",
        "federated, without privacy",
        "each client alone, without privacy",
    ]
    report = json.loads((run / "privacy_report.json").read_text())
    assert 0 < report["epsilon"] <= 8.0
    assert "Simulated" in summary["privacy_statement"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    shown = fedtrain("ledger", "verify", "latest", "--format", "json").json()
    assert shown["length"] == 3
    scores = fedtrain("evaluate", str(run), "--format", "json").json()["scores"]
    assert scores == pytest.approx(summary["test"])


def test_interrupted_and_killed_run_ends_with_the_same_bits(
    tmp_path: Path, fedtrain: CommandLine
) -> None:
    arguments = ["simulate", *settings("rounds.num_rounds=60")]
    first = process(tmp_path, *arguments)
    run = wait_for_rounds(tmp_path, 2)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert f"fedtrain simulate --resume {run.relative_to(tmp_path)}" in errors
    assert "Traceback" not in errors
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"

    second = process(tmp_path, "simulate", "--resume", "latest")
    done = len((run / "metrics.jsonl").read_bytes().splitlines())
    wait_for_rounds(tmp_path, done + 2)
    second.kill()
    second.communicate()
    assert not (run / "weights.npz").exists(), "killed too late to test anything"
    torn = shutil.copytree(run, tmp_path / "runs" / "torn")

    resumed = fedtrain("simulate", "--resume", str(run), "--format", "json").json()
    whole = fedtrain(*arguments, "--format", "json").json()
    assert resumed["run"] != whole["run"]
    assert_same_bits(run, Path(whole["run"]))
    assert resumed["privacy"]["epsilon"] == whole["privacy"]["epsilon"]
    with (run / "metrics.jsonl").open() as lines:
        assert [json.loads(line)["round_number"] for line in lines] == list(range(60))
    _check_shortened_ledger(torn, fedtrain)


def _check_shortened_ledger(run: Path, fedtrain: CommandLine) -> None:
    info = json.loads((run / "run.json").read_text())
    ledger = run / "ledger.jsonl"
    (run / "run.json").write_text(json.dumps(info | {"ledger": str(ledger)}))
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    stopped = fedtrain("simulate", "--resume", str(run), expect=5)
    assert "fedtrain ledger repair" in stopped.errors
    fedtrain("ledger", "verify", str(run), expect=5)
    repaired = fedtrain("ledger", "repair", str(run), "--format", "json").json()
    assert repaired["entries_charged_anew"] >= 2
    assert not repaired["unlimited"]
    fedtrain("ledger", "verify", str(run))


def test_damaged_checkpoint_costs_one_round_and_refunds_nothing(
    fedtrain: CommandLine, caplog: pytest.LogCaptureFixture
) -> None:
    summary = fedtrain(
        "simulate", *settings("rounds.num_rounds=4"), "--format", "json"
    ).json()
    run = Path(summary["run"])
    whole = shutil.copytree(run, run.with_name("whole"))
    newest = max(run.glob("checkpoints/*.ckpt"))
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    (run / "weights.npz").unlink()

    resumed = fedtrain("simulate", "--resume", str(run), "--format", "json").json()
    assert f"{newest.name} is damaged; falling back one generation" in caplog.text
    assert_same_bits(run, whole)
    assert (run / "ledger.jsonl").read_bytes() == (whole / "ledger.jsonl").read_bytes()
    assert resumed["privacy"]["epsilon"] == summary["privacy"]["epsilon"]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round_number"] for line in lines] == [0, 1, 2, 3]

    _a_copied_runs_ledger_is_its_own(whole, fedtrain)


def _a_copied_runs_ledger_is_its_own(run: Path, fedtrain: CommandLine) -> None:
    ledger = run / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(True)[:-1]))
    assert "3 entries" in fedtrain("ledger", "verify", str(run), expect=5).errors
    repaired = fedtrain("ledger", "repair", str(run), "--format", "json").json()
    assert repaired["ledger"] == str(ledger)
    assert repaired["entries_charged_anew"] == 1


def test_diverging_run_stops_with_its_own_exit_code(
    tmp_path: Path, fedtrain: CommandLine
) -> None:
    (tmp_path / "wild.toml").write_text(
        """
        name = "wild"
        seed = 1
        data = { name = "digits", partition = "iid", num_clients = 3 }
        model = { name = "dense_classifier", weight_penalty = 10.0 }
        rounds = { num_rounds = 50 }
        client = { learning_rate = 1e12, batch_size = 32, local_epochs = 2 }
        """
    )
    done = fedtrain("simulate", "wild.toml", expect=4)
    assert "learning rate" in done.errors
    assert not list(tmp_path.glob("runs/*/weights.npz"))


def test_budget_stops_a_run_before_it_would_be_passed(
    tmp_path: Path, fedtrain: CommandLine
) -> None:
    more = ["privacy.noise_multiplier=1.0", "privacy.target_epsilon=5.0"]
    done = fedtrain("simulate", *settings("rounds.num_rounds=9", *more), expect=3)
    assert "budget of 5" in done.errors
    lines = next(tmp_path.glob("runs/*/metrics.jsonl")).read_text().splitlines()
    assert 0 < len(lines) < 9
    assert json.loads(lines[-1])["spent_epsilon"] <= 5.0


def pack_clients(folder: str, sizes: dict[str, int]) -> None:
    random = np.random.Generator(np.random.Philox(1))
    features = random.normal(size=[max(sizes.values()), 2]).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int32)
    rows = Examples(features=features, labels=labels)
    clients = {name: rows.slice(0, size) for name, size in sizes.items()}
    pack(from_clients(clients, sensitivity="public"), folder)


def test_clients_without_rows_are_skipped_and_counted(
    tmp_path: Path, fedtrain: CommandLine
) -> None:
    project = """
        name = "{0}"
        seed = 1
        data = {{ path = "{0}", test_fraction = 0.25 }}
        model = {{ name = "dense_classifier" }}
        rounds = {{ num_rounds = 2 }}
        client = {{ learning_rate = 0.1, batch_size = 4, local_epochs = 1 }}
        evaluation = {{ baselines = false }}
        tracking = {{ tensorboard = false }}
    """
    pack_clients("with", {"a": 8, "none": 0, "b": 12, "nothing": 0})
    pack_clients("without", {"a": 8, "b": 12})
    runs = {}
    for name in ("with", "without"):
        (tmp_path / f"{name}.toml").write_text(project.format(name))
        done = fedtrain("simulate", f"{name}.toml")
        (runs[name],) = tmp_path.glob(f"runs/{name}-*")
        assert ("Clients without rows: 2" in done.output) == (name == "with")
    run = runs["with"]
    assert json.loads((run / "summary.json").read_text())["empty_clients"] == 2
    assert json.loads((run / "run.json").read_text())["data"]["empty_clients"] == 2
    for line in (run / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["skipped_clients"] == 2
        assert json.loads(line)["cohort_size"] == 4
    assert_same_bits(run, runs["without"])


def test_new_project_runs_at_once(tmp_path: Path, fedtrain: CommandLine) -> None:
    fedtrain("new", "mine")
    assert "not empty" in fedtrain("new", "mine", expect=2).errors
    file = str(tmp_path / "mine" / "federation.toml")
    few = settings("rounds.num_rounds=2")
    summary = fedtrain("simulate", file, *few, "--format", "json").json()
    run = Path(summary["run"])
    assert run.parent == tmp_path / "mine" / "runs"
    assert (run / "model.py").read_text() == (run.parents[1] / "model.py").read_text()
    plan = fedtrain("plan", file, "--solve-for", "noise", "--format", "json").json()
    assert plan["rows"][0]["noise_multiplier"] > 0.5
    assert plan["rows"][0]["epsilon"] == pytest.approx(8.0, rel=1e-3)


def test_data_is_listed_described_and_packed(
    tmp_path: Path, fedtrain: CommandLine
) -> None:
    names = [row["name"] for row in fedtrain("data", "list", "--format", "json").json()]
    assert {"digits", "breast_cancer", "mnist"} <= set(names)
    fedtrain("data", "pack", "digits", str(tmp_path / "packed"))
    found = fedtrain("data", "describe", str(tmp_path / "packed"), "--format", "json")
    assert found.json()["num_clients"] == 20
    assert 0.3 < found.json()["label_skew"] < 0.8


def test_a_misspelt_data_set_is_told_from_a_file(fedtrain: CommandLine) -> None:
    errors = fedtrain("data", "describe", "digit", expect=2).errors
    assert "Did you mean 'digits'?" in errors


def test_resume_takes_a_run_as_it_was_started(fedtrain: CommandLine) -> None:
    changed = ["--resume", "latest", "-s", "seed=2"]
    assert "--resume" in fedtrain("simulate", *changed, expect=2).errors
    missing = fedtrain("simulate", "--resume", "nowhere", expect=2)
    assert "is not a run" in missing.errors


def test_errors_are_json_where_json_is_asked_for(fedtrain: CommandLine) -> None:
    wrong = ["-s", "privacy.nosie=1", "--format", "json"]
    found = fedtrain("simulate", *wrong, expect=2).json()
    assert found["exit_code"] == 2
    assert found["error"]["problems"][0]["key"] == "privacy.nosie"


def test_version_and_help(fedtrain: CommandLine) -> None:
    assert fedtrain("--version").output.startswith("fedtrain 0.")
    words = " ".join(fedtrain("--help").output.split())
    assert "130 interrupted" in words
    assert fedtrain("simulate", "--no-such-option", expect=2).errors


def test_import_is_quick_and_loads_no_tensorflow() -> None:
    code = (
        "import sys, time; t = time.process_time(); import fedtrain; dir(fedtrain); "
        "print(time.process_time() - t); import fedtrain.cli.main; "
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert float(done.stdout) < 1.0
