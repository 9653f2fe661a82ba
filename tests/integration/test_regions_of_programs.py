"""Nine partners, three regions and an operator, each a program of its own."""

import contextlib
import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from aggregator.demo_shell import Shell
from aggregator.home import federation_in
from fedtrain.core.addresses import free_addresses
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from fedtrain.project.run_folder import RunFolder
from tests.integration.test_deployed import simulated

pytestmark = [pytest.mark.slow, pytest.mark.network]
BANKS = [f"bank-{letter}" for letter in "abcdefghi"]
REGIONS = {f"region-{k:02}": BANKS[3 * k : 3 * k + 3] for k in range(3)}
ROWS = 40
PROJECT = """
name = "credit"
seed = 3
[data]
path = "all.csv"
schema_path = "schema.json"
[model]
name = "dense_classifier"
hidden = [5]
[rounds]
algorithm = "fed_sgd"
num_rounds = 2
secure_aggregation = true
num_regions = 3
[client]
sampling_rate = 0.25
expected_batch_size = 10.0
[privacy]
unit = "example"
trust = "distributed"
neighboring_relation = "add_or_remove_one"
delta = 1e-3
sampling = "poisson"
clipping_norm = 1.0
noise_multiplier = 1.0
[evaluation]
baselines = false
[tracking]
tensorboard = false
html_report = false
[service]
clients = {clients}
rows_per_client = {rows}
address = "{address}"
page = "{page}"
deadline_s = 7200.0
further_attempts = 0
repeats_simulation = true
"""


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Rows, schema and project file; nothing is enrolled."""
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    random = np.random.default_rng(7)
    values = random.normal(size=(len(BANKS) * ROWS, 4)).round(3)
    frame = pd.DataFrame(values, columns=list("wxyz"))
    frame["label"] = (frame["w"] + frame["x"] > 0).astype(int)
    frame["bank"] = np.repeat(BANKS, ROWS)
    frame.to_csv(tmp_path / "all.csv", index=False)
    for bank, own in frame.groupby("bank"):
        own.drop(columns="bank").to_csv(tmp_path / f"{bank}.csv", index=False)
    schema = infer_schema(table_of(frame), label="label", client="bank")
    schema.with_source("declared").save(tmp_path / "schema.json")
    address, page = free_addresses(2)
    text = PROJECT.format(
        clients=json.dumps(BANKS), rows=ROWS, address=address, page=page
    )
    (tmp_path / "federation.toml").write_text(text)
    return Shell(tmp_path)


def enrol(shell, names, home, *approval):
    """Each makes its keys and approves the plan, once all are admitted."""
    for name in names:
        shell.run("fedtrain-client", "request", name)
        request = f"{name}.request"
        shell.run("fedtrain-aggregator", "admit", request, "--yes", "--home", home)
    shell.run("fedtrain-aggregator", "partners", "invite", *names, "--home", home)
    for name in names:
        shell.run("fedtrain-client", "approve", f"{name}.invitation", *approval)


def enrol_all(shell):
    top, addresses = "aggregator-home", free_addresses(6)
    # Whoever repeats a simulation promises nothing.
    approval = ("--max-epsilon", "inf")
    shell.run("fedtrain-aggregator", "init", "federation.toml", "--operator", "test")
    enrol(shell, REGIONS, top, *approval)
    for number, (region, banks) in enumerate(REGIONS.items()):
        own = ("--address", addresses[2 * number], "--page", addresses[2 * number + 1])
        made = (f"{region}.invitation", *own, "--home", f"{region}-home")
        shell.run("fedtrain-aggregator", "region", "init", *made)
        enrol(shell, banks, f"{region}-home", *approval)


@pytest.mark.timeout(3600)
def test_a_run_over_regions_is_the_simulated_one(shell, tmp_path):
    enrol_all(shell)
    with contextlib.ExitStack() as stack:
        for region in REGIONS:
            serve = (f"{region}.invitation", "--home", f"{region}-home")
            command = ("fedtrain-aggregator", "region", "serve", *serve)
            stack.enter_context(shell.background(region, *command))
        for bank in BANKS:
            files = (f"{bank}.invitation", "--data", f"{bank}.csv")
            command = ("fedtrain-client", "join", *files, "--format", "json")
            stack.enter_context(shell.background(bank, *command))
        shell.run("fedtrain-aggregator", "serve")
        shell.wait()
    top = federation_in(tmp_path / "aggregator-home")
    (folder,) = map(RunFolder, top.runs.glob("credit-*"))
    with np.load(folder.weights) as found:
        weights = [found[name] for name in found.files]
    expected = simulated(tmp_path, top.config())
    for own, other in zip(
        weights, tf.nest.flatten(expected.state.weights), strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-5)
    for region in REGIONS:
        log = (tmp_path / f"{region}.log").read_text()
        assert log.count("INPUT") == 2
