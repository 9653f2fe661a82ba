"""What partners send in short, added up from the disk, is what a simulation adds up."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from aggregator.planning import plan_for
from aggregator.spool import added_up, is_finite
from clients import training
from clients.work import RoundTask
from fedtrain.project.crossing import crossing_of, leaves, packed
from fedtrain.project.deployed import deployed
from fedtrain.project.read import checked_config
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.wire.arrays import num_bytes, to_bytes
from fedtrain.wire.plan import Plan
from fedtrain.wire.plan_words import in_words
from tests.unit.aggregator.small_project import FRAME, PLAIN, SCHEMA

BANKS = ("bank-a", "bank-b")
KINDS = {
    "int4": {"update_compression": "int4"},
    "top_k": {"update_compression": "top_k", "kept_fraction": 0.1},
}


@pytest.fixture
def project(request, tmp_path):
    tables = {
        "name": "short",
        "seed": 3,
        "data": {"path": "rows", "schema_path": "schema.json"},
        "model": {"name": "dense_classifier", "hidden": [40]},
        "rounds": {"num_rounds": 1, **KINDS[request.param]},
        "client": PLAIN,
        "service": {
            "clients": list(BANKS),
            "rows_per_client": 4,
            "repeats_simulation": True,
        },
    }
    return deployed(checked_config(tables, file="test"), folder=tmp_path, schema=SCHEMA)


@pytest.fixture
def files(tmp_path):
    """Each bank's rows."""
    for bank, rows in zip(BANKS, (FRAME[:5], FRAME[5:]), strict=True):
        rows.to_csv(tmp_path / f"{bank}.csv", index=False)
    return {bank: tmp_path / f"{bank}.csv" for bank in BANKS}


def first_state(project):
    return project.round_.init(project.starting_weights())


def simulated(project, files):
    state = first_state(project)
    kept = project.round_.client_work.init_state(state.weights)
    cohort = [
        CohortClient(bank, training.own_rows(str(path), SCHEMA, num_classes=2), kept)
        for bank, path in files.items()
    ]
    runtime = CompiledRuntime(strategy="graph", chunk_size=1, num_workers=1)
    return runtime.run_round(project.round_, state, cohort, project.seed).state


def between_partners(project, plan, files, folder):
    server = CompiledRuntime(strategy="graph")
    state = project.round_.init(project.starting_weights())
    message = leaves(server.broadcast(project.round_, state))
    sent = []
    for bank, path in files.items():
        work = training.work_of(plan, data=str(path), home=folder, client_id=bank)
        sent.append(written(work, project, message, plan, folder))
    like = crossing_of(project.round_, project.starting_weights()).contribution
    total = packed(added_up(sent, plan.contribution), like=like)
    return server.server_update(project.round_, state, total, project.seed)


def written(work, project, message, plan, folder):
    """A contribution on the disk, with its hash, as the aggregator has it."""
    info = {"seed": [int(word) for word in project.seed]}
    task = RoundTask("run", 0, 0, "train", "aa", info)
    content = to_bytes(plan.contribution, work.compute(task, message))
    assert len(content) == num_bytes(plan.contribution)
    path = folder / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    assert is_finite(path, plan.contribution)
    return path, path.name


@pytest.mark.parametrize("project", ["int4"], indirect=True)
def test_partners_send_less_and_the_model_is_that_of_a_simulation(
    project, files, tmp_path
):
    plan = plan_for(project, operator="test")
    found = between_partners(project, plan, files, tmp_path)
    expected = simulated(project, files)
    for own, other in zip(
        tf.nest.flatten(found), tf.nest.flatten(expected), strict=True
    ):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("project", ["top_k"], indirect=True)
def test_what_was_kept_for_another_model_is_left_out_and_said(
    project, files, tmp_path, caplog
):
    plan = plan_for(project, operator="test")
    message = leaves(project.round_.broadcast(first_state(project)))
    answers = []
    for kept in (b"", b"of another model"):
        work = training.work_of(
            plan, data=str(files["bank-a"]), home=tmp_path, client_id="bank-a"
        )
        work.kept = kept
        answers.append(written(work, project, message, plan, tmp_path)[1])
    assert answers[0] == answers[1]
    (said,) = [one for one in caplog.records if one.name == "clients.training"]
    assert "does not fit" in said.getMessage()


@pytest.mark.parametrize(
    ("project", "said"),
    [("int4", "at random to 4 bits"), ("top_k", "only the largest 10 %")],
    indirect=["project"],
)
def test_a_plan_says_how_much_shorter_and_how(project, said):
    plan = plan_for(project, operator="test")
    assert Plan.from_bytes(plan.canonical()) == plan
    plain = sum(spec.plain_bytes for spec in plan.contribution)
    assert num_bytes(plan.contribution) < 0.3 * plain
    words = " ".join(in_words(plan).split())
    assert f"(compressed from {plain} bytes)" in words
    assert said in words
