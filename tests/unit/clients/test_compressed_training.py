"""What partners send in short, added up from the disk, is what a simulation adds up."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from aggregator.planning import plan_for
from aggregator.spool import added_up, is_finite
from clients import training
from clients.work import RoundTask
from fedtrain.core import seeds
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
# In a second round a last bit of the weights could decide where a number is rounded to.
NUM_ROUNDS = {"int4": 1, "top_k": 2}


@pytest.fixture
def project(request, tmp_path):
    tables = {
        "name": "short",
        "seed": 3,
        "data": {"path": "rows", "schema_path": "schema.json"},
        "model": {"name": "dense_classifier", "hidden": [40]},
        "rounds": {"num_rounds": NUM_ROUNDS[request.param], **KINDS[request.param]},
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


def simulated(project, files):
    cohort = {
        bank: training.own_rows(str(path), SCHEMA, num_classes=2)
        for bank, path in files.items()
    }
    state = project.round_.init(project.starting_weights())
    kept = dict.fromkeys(BANKS, project.round_.client_work.init_state(state.weights))
    runtime = CompiledRuntime(strategy="graph", chunk_size=1, num_workers=1)
    for number in range(project.config.rounds.num_rounds):
        clients = [CohortClient(b, rows, kept[b]) for b, rows in cohort.items()]
        seed = seeds.derive(project.seed, number)
        result = runtime.run_round(project.round_, state, clients, seed)
        state, kept = result.state, result.client_states
    return state


def between_partners(project, plan, files, folder):
    works = {
        bank: training.work_of(plan, data=str(path), home=folder, client_id=bank)
        for bank, path in files.items()
    }
    server = CompiledRuntime(strategy="graph")
    state = project.round_.init(project.starting_weights())
    like = crossing_of(project.round_, project.starting_weights()).contribution
    for number in range(project.config.rounds.num_rounds):
        seed = seeds.derive(project.seed, number)
        info = {"seed": [int(word) for word in seed]}
        task = RoundTask("run", number, 0, "train", "aa", info)
        message = leaves(server.broadcast(project.round_, state))
        sent = [written(work, task, message, plan, folder) for work in works.values()]
        total = packed(added_up(sent, plan.contribution), like=like)
        state = server.server_update(project.round_, state, total, seed)
    return state


def written(work, task, message, plan, folder):
    """A contribution on the disk, with its hash, as the aggregator has it."""
    content = to_bytes(plan.contribution, work.compute(task, message))
    assert len(content) == num_bytes(plan.contribution)
    path = folder / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    assert is_finite(path, plan.contribution)
    return path, path.name


@pytest.mark.parametrize("project", KINDS, indirect=True)
def test_partners_send_less_and_the_model_is_that_of_a_simulation(
    project, files, tmp_path
):
    plan = plan_for(project, operator="test")
    assert Plan.from_bytes(plan.canonical()) == plan
    plain = sum(spec.plain_bytes for spec in plan.contribution)
    assert num_bytes(plan.contribution) < 0.3 * plain
    found = between_partners(project, plan, files, tmp_path)
    expected = simulated(project, files)
    for own, other in zip(
        tf.nest.flatten(found), tf.nest.flatten(expected), strict=True
    ):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)
    words = " ".join(in_words(plan).split())
    assert f"(compressed from {plain} bytes)" in words
    said = {"int4": "at random to 4 bits", "top_k": "only the largest 10 %"}
    assert said[project.config.rounds.update_compression] in words
