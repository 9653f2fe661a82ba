"""Runs that reach their end by an unusual way, and what they leave behind there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedtrain.cli.main import run as run_command
from fedtrain.core.errors import StoppedError
from fedtrain.project.build import build
from fedtrain.project.load import load_run
from fedtrain.project.read import read_config
from fedtrain.project.run import run as go_on
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.weights_file import load_arrays

PROJECT = """
name = "own"
seed = 1
[data]
path = "rows.csv"
label = "outcome"
client = "hospital"
sensitivity = "public"
[model]
name = "dense_classifier"
[rounds]
num_rounds = 2
[client]
learning_rate = 0.1
batch_size = 8
local_epochs = 1
[tracking]
tensorboard = false
"""
ROW_PRIVACY = [
    'privacy={unit="example", trust="local", neighboring_relation="add_or_remove_one",'
    ' delta=1e-3, sampling="poisson", clipping_norm=1.0, noise_multiplier=2.0}',
    "client={learning_rate=0.1, sampling_rate=0.5, local_steps=1,"
    " expected_batch_size=5}",
]


@pytest.fixture
def simulate(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """Runs a project with ``settings``; gives the run's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "federation.toml").write_text(PROJECT)
    random = np.random.Generator(np.random.Philox(1))
    frame = pd.DataFrame(random.normal(size=[40, 2]), columns=["age", "dose"])
    frame["outcome"] = (frame["age"] + frame["dose"] > 0).astype(int)
    frame["hospital"] = [f"h{i % 4}" for i in range(40)]
    frame.to_csv(tmp_path / "rows.csv", index=False)

    def run(
        *settings: str, expect: int = 0, file: tuple[str, ...] = ("federation.toml",)
    ) -> Path:
        words = [word for setting in settings for word in ("-s", setting)]
        code = run_command(["simulate", *file, *words])
        assert code == expect, capsys.readouterr().err
        (folder,) = (tmp_path / "runs").iterdir()
        return folder

    return run


def values(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_run_without_test_rows_ends_without_scores(simulate: Any) -> None:
    run = simulate()
    summary = values(run / "summary.json")
    assert summary["test"] is None
    assert summary["comparison"] is None
    assert (run / "report.html").is_file()


def test_private_test_rows_of_public_data_are_not_compared(simulate: Any) -> None:
    private_test = ["data.test_fraction=0.2", 'data.test_sensitivity="private"']
    summary = values(simulate(*private_test, *ROW_PRIVACY) / "summary.json")
    assert summary["test"] is None
    assert summary["comparison"] is None
    assert summary["privacy"]["epsilon"] > 0


def test_private_test_rows_are_not_scored_afterwards(
    simulate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    private_test = ["data.test_fraction=0.2", 'data.test_sensitivity="private"']
    run = simulate(*private_test, *ROW_PRIVACY)
    capsys.readouterr()
    assert run_command(["evaluate", str(run)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert "--data" in errors
    assert run_command(["evaluate", str(run), "--data", "rows.csv"]) == 0


DIGITS = ["data.num_clients=4", 'data.sensitivity="private"', "rounds.num_rounds=2"]
HIDDEN = [
    'privacy={unit="client", trust="central", neighboring_relation="add_or_remove_one",'
    ' delta=1e-3, sampling="poisson", clipping_norm=1.0, noise_multiplier=2.0,'
    " cohort_is_hidden=true, accept_weak_privacy=true}",
    'rounds={num_rounds=2, sampler="poisson", sampling_rate=0.5}',
    "client={learning_rate=0.1, batch_size=8, local_epochs=1}",
]


@pytest.mark.parametrize("is_hidden", [False, True])
def test_exact_counts_of_private_data_stay_in_the_process(
    simulate: Any, *, is_hidden: bool
) -> None:
    run = simulate(*DIGITS, *(HIDDEN if is_hidden else []), file=())
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_clients"] for line in lines] == [None, None]
    for key in ("cohort_size", "lost_clients"):
        assert all((line[key] is None) == is_hidden for line in lines)
    facts = values(run / "run.json")["data"]
    assert not {"num_examples", "num_test_examples", "empty_clients"} & set(facts)
    assert values(run / "summary.json")["empty_clients"] is None
    report = values(run / "privacy_report.json")
    assert " rows" not in report["data"]["training"]
    assert (report["num_units"] == 4) == is_hidden
    assert "unknown" in report["data"]["normaliser"]


def test_budget_keeps_what_the_rounds_before_it_came_to(simulate: Any) -> None:
    small = ["data.num_clients=4", "evaluation.baselines=false"]
    budget = ["privacy.noise_multiplier=1.0", "privacy.target_epsilon=5.0"]
    run = simulate(*small, *budget, "rounds.num_rounds=9", file=(), expect=3)
    rounds = len((run / "metrics.jsonl").read_text().splitlines())
    assert 0 < rounds < 9
    assert values(run / "run.json")["status"] == "budget exhausted"
    summary = values(run / "summary.json")
    assert summary["status"] == "budget exhausted"
    assert summary["rounds"] == rounds
    report = values(run / "privacy_report.json")
    assert report["rounds_done"] == rounds
    assert report["rounds_planned"] == 9
    assert report["epsilon"] <= 5.0
    assert load_run(run).weights
    assert (run / "report.html").is_file()


def test_saved_keras_model_is_kept_with_the_run_and_resumed(
    tmp_path: Path, simulate: Any
) -> None:
    model = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "saved.keras")
    run = simulate('model={path="saved.keras"}', "evaluation.baselines=false")
    (tmp_path / "saved.keras").unlink()
    before = load_run(run).weights
    (run / "weights.npz").unlink()
    assert run_command(["simulate", "--resume", str(run)]) == 0
    after = load_run(run).weights
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_run_that_stops_early_leaves_best_and_last_weights(simulate: Any) -> None:
    stop = 'stop={metric="held_out_loss", patience=1, min_delta=100.0}'
    run = simulate("rounds.num_rounds=5", "evaluation.held_out_fraction=0.3", stop)
    summary = values(run / "summary.json")
    assert (summary["rounds"], summary["status"]) == (2, "finished")
    assert (summary["stop"]["rounds_done"], summary["stop"]["num_worse"]) == (1, 1)
    loaded = load_run(run)
    first, _ = loaded.history
    assert summary["stop"]["value"] == first["metrics"]["held_out_loss"]
    found, best, last = (
        load_arrays(path)["trainable/0/kernel"]
        for path in (
            loaded.folder.weights,
            run / "best_weights.npz",
            run / "last_weights.npz",
        )
    )
    np.testing.assert_array_equal(found, best)
    assert not np.array_equal(best, last)


def test_run_that_is_ended_for_good_leaves_its_last_weights(simulate: Any) -> None:
    folder = RunFolder(simulate(*ROW_PRIVACY))
    before = load_arrays(folder.weights)
    for path in (folder.weights, folder.summary, folder.privacy_report):
        path.unlink()
    project = build(read_config(folder.config), folder=folder.path)
    with pytest.raises(StoppedError, match=r"enough.*after 2 rounds"):
        go_on(
            project, folder, console=Console(quiet=True), ended=StoppedError("enough.")
        )
    assert load_run(folder.path).status == "stopped"
    found = load_arrays(folder.weights)
    assert all(np.array_equal(found[name], before[name]) for name in before)
    assert values(folder.privacy_report)["rounds_done"] == 2
