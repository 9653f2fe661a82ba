"""Each experiment runs from its command line and goes on where it stopped."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def module(name):
    return importlib.import_module(f"simulations.{name}")


def run(monkeypatch, name, folder, *arguments):
    command = [name, "--output", str(folder), "--seeds", "1", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    module(f"{name}.run").main()
    return json.loads((folder / "results.json").read_text())["trials"]


def test_heart_disease_reproduces_training_at_one_hospital(
    monkeypatch, tmp_path, data_dir
):
    rows = ("--only", "fed_adam", "local_cleveland")
    only = (*rows, "--rounds", "1", "--seeds", "3")
    trials = run(monkeypatch, "heart_disease", tmp_path, *only)
    assert trials["local_cleveland"][0]["pooled_test"] > 0.75
    assert set(trials) == {"fed_adam", "local_cleveland"}
    assert "reproduced" in (tmp_path / "table.md").read_text()


def test_a_finished_trial_is_not_run_again(monkeypatch, tmp_path, data_dir):
    only = ("--only", "fed_avg", "--rounds", "1")
    first = run(monkeypatch, "heart_disease", tmp_path, *only)
    assert run(monkeypatch, "heart_disease", tmp_path, *only) == first


def test_credit_default_spends_no_more_than_its_target(monkeypatch, tmp_path, data_dir):
    only = ("--only", "federated", "federated_epsilon_3", "--rounds", "1")
    trials = run(monkeypatch, "credit_default", tmp_path, *only)
    assert 2.9 < trials["federated_epsilon_3"][0]["epsilon"] <= 3.0
    assert trials["federated"][0]["roc_auc"] > 0.6
    ledger = tmp_path / "federated_epsilon_3" / "seed_0" / "ledger.jsonl"
    assert len(ledger.read_text().splitlines()) == 1


def test_a_round_that_ran_twice_counts_once(tmp_path):
    lines = [{"round": number} for number in (1, 2, 3, 3, 4)]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "curve.jsonl").write_text(text)
    assert module("experiment").curve(tmp_path) == [{"round": n} for n in (1, 2, 3, 4)]


def test_the_verdict_says_how_much_is_missing():
    experiment = module("experiment")
    published = experiment.Expected(0.9, 0.02)
    assert experiment.verdict(0.88, published) == "reproduced"
    assert experiment.verdict(0.87, published) == "short by 0.0100"
    assert experiment.repeated(0.93, published) == "+0.0300"


def test_calibration_error_is_zero_where_rates_are_as_predicted():
    calibration_error = module("credit_default.run").calibration_error
    labels = np.tile([0, 0, 0, 1], 100)
    logits = np.tile([np.log(3.0), 0.0], [400, 1])
    assert calibration_error(labels, logits, num_bins=1) == pytest.approx(0.0)
    assert calibration_error(labels, 0.0 * logits, num_bins=1) == pytest.approx(0.25)


def test_mnist_writers_runs(monkeypatch, tmp_path, data_dir):
    only = ("--only", "fed_avg", "--rounds", "2")
    trials = run(monkeypatch, "mnist_writers", tmp_path, *only)
    assert trials["fed_avg"][0]["test_accuracy"] > 0.4


def test_mnist_writers_plans_noise_for_every_writer_in_every_round(data_dir):
    writers = module("mnist_writers.run")
    plan = writers.plan_for(8.0, num_rounds=25)
    assert 7.9 < plan.epsilon() <= 8.0
    assert not plan.amplifies
    assert writers.private(plan).mechanisms[0].noise_multiplier == plan.noise_multiplier


@pytest.mark.slow
def test_mnist_niid_is_above_ninety_percent_after_one_round(
    monkeypatch, tmp_path, data_dir
):
    only = ("--only", "iid/fed_avg", "--rounds", "1")
    trials = run(monkeypatch, "mnist_niid", tmp_path, *only)
    assert trials["iid/fed_avg"][0]["best_accuracy"] > 0.9


def test_mnist_niid_has_a_round_for_every_published_figure():
    niid = module("mnist_niid.run")
    algorithms = {name.split("/")[1] for name in niid.PUBLISHED}
    assert algorithms == set(niid.rounds())


@pytest.mark.slow
def test_shakespeare_goes_on_from_a_shorter_run(monkeypatch, tmp_path, data_dir):
    for rounds in ("1", "2"):
        only = ("--only", "fed_avg", "--rounds", rounds)
        run(monkeypatch, "shakespeare", tmp_path, *only)
    curve = (tmp_path / "fed_avg" / "seed_0" / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in curve] == [1, 2]
