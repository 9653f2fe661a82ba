"""A run is resumed with the rows that it started with, or not at all."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedtrain.cli.main import run as run_command
from fedtrain.project.build import build
from fedtrain.project.read import read_config
from fedtrain.project.run import run as run_project
from fedtrain.project.run import start_run

PROJECT = """
name = "own"
seed = 1
[data]
path = "rows.csv"
label = "outcome"
client = "hospital"
sensitivity = "public"
test_fraction = 0.2
[model]
name = "dense_classifier"
[rounds]
num_rounds = 2
[client]
learning_rate = 0.1
batch_size = 8
local_epochs = 1
[evaluation]
baselines = false
[tracking]
tensorboard = false
html_report = false
"""


def test_changed_rows_are_refused_and_the_same_rows_are_not(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "federation.toml").write_text(PROJECT)
    random = np.random.Generator(np.random.Philox(1))
    frame = pd.DataFrame(random.normal(size=[40, 2]), columns=["age", "dose"])
    frame["outcome"] = (frame["age"] > 0).astype(int)
    frame["hospital"] = [f"h{i % 4}" for i in range(40)]
    frame.to_csv("rows.csv", index=False)
    assert run_command(["simulate", "federation.toml"]) == 0
    (run,) = Path("runs").iterdir()
    started = json.loads((run / "run.json").read_text())
    assert len(started["data_sha256"]) == 64
    capsys.readouterr()

    renamed = frame["hospital"].replace("h3", "h4")
    frame.assign(hospital=renamed).to_csv("rows.csv", index=False)
    assert run_command(["simulate", "--resume", "latest"]) == 2
    message = capsys.readouterr().err
    assert "have changed since it started" in message
    assert f"fedtrain simulate {run / 'federation.toml'} -s seed=2" in message
    assert json.loads((run / "run.json").read_text()) == started

    again = ["simulate", str(run / "federation.toml"), "-s", "seed=2"]
    assert run_command(again) == 0
    frame.to_csv("rows.csv", index=False)
    assert run_command(["simulate", "--resume", str(run)]) == 0


def test_a_run_that_began_with_gaps_in_its_rows_goes_on_and_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "federation.toml").write_text(PROJECT)
    ages = np.arange(40.0)
    frame = pd.DataFrame({"age": ages, "outcome": ages % 2, "hospital": "h1"})
    frame.loc[7, "age"] = np.nan
    frame.to_csv("rows.csv", index=False)
    assert run_command(["simulate", "federation.toml"]) == 2  # a new run is refused
    begun = build(read_config("federation.toml"), folder=Path(), allow_missing=True)
    run_project(begun, start_run(begun), console=Console(quiet=True))
    assert run_command(["simulate", "--resume", "latest"]) == 0
    assert run_command(["evaluate", "latest"]) == 0
