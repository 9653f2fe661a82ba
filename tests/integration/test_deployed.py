"""A simulated run and the same run between partners over TLS have the same weights."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from aggregator.authority import Terms, init
from aggregator.calls import Served
from aggregator.grpc_runtime import GrpcRuntime
from aggregator.home import Federation
from aggregator.journal import Journal
from aggregator.own_noise import forget_own_key
from aggregator.planning import plan_for
from aggregator.rounds import Rounds, RunStoppedError
from aggregator.secure_terms import secure_terms
from aggregator.server import Server, serving
from aggregator.trained import prepared
from clients.agent import Agent
from clients.home import Home
from clients.local import local_rows
from clients.pins import pin
from clients.policy import policy_for, write_policy
from clients.transport import Transport, caller_of
from fedtrain.core.errors import PrivacyError
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.build import build
from fedtrain.project.deployed import deployed
from fedtrain.project.read import checked_config
from fedtrain.project.run_privacy import run_privacy_of
from fedtrain.project.scores import evaluate_of
from fedtrain.project.toml_text import toml_text
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import num_bytes
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys

pytestmark = pytest.mark.network
BANKS = ("bank-a", "bank-b", "bank-c")
ROWS = 40
PLAIN = {"learning_rate": 0.1, "batch_size": 8, "local_epochs": 2}
POISSON = {
    "learning_rate": 0.1,
    "sampling_rate": 0.25,
    "local_steps": 3,
    "expected_batch_size": 10.0,
}
PRIVACY = {
    "unit": "example",
    "trust": "local",
    "neighboring_relation": "add_or_remove_one",
    "delta": 1e-3,
    "sampling": "poisson",
    "clipping_norm": 1.0,
    "noise_multiplier": 1.0,
}


@pytest.fixture
def federation(tmp_path, monkeypatch):
    """Three banks' rows, by bank and all in one file, and their schema."""
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    random = np.random.default_rng(7)
    rows = random.normal(size=(3 * ROWS, 4)).round(3)
    frame = pd.DataFrame(rows, columns=list("abcd"))
    frame["label"] = (frame["a"] + frame["b"] > 0).astype(int)
    frame["bank"] = np.repeat(BANKS, ROWS)
    frame.to_csv(tmp_path / "all.csv", index=False)
    for bank, own in frame.groupby("bank"):
        own.drop(columns="bank").to_csv(tmp_path / f"{bank}.csv", index=False)
    schema = infer_schema(table_of(frame), label="label", client="bank")
    schema.with_source("declared").save(tmp_path / "schema.json")
    return tmp_path


def config_of(client, privacy=None, *, repeats=True, **sections):
    tables = {
        "name": "credit",
        "seed": 3,
        "data": {"path": "all.csv", "schema_path": "schema.json"},
        "model": {"name": "dense_classifier", "hidden": [5]},
        "rounds": {"num_rounds": 2},
        "client": client,
        "service": {
            "clients": list(BANKS),
            "rows_per_client": ROWS,
            "deadline_s": 600.0,  # no machine is too slow
            "further_attempts": 0,
            "repeats_simulation": repeats,
        },
    }
    if privacy:
        tables["privacy"] = privacy
    tables |= sections
    return checked_config(tables, file="test")


def result_of(project, runtime, folder):
    privacy = run_privacy_of(project, Ledger(folder / "ledger.jsonl"), "run")
    project = replace(project, runtime=runtime)
    run = TrainingRun(
        round_=project.round_,
        dataset=project.split.train,
        sampler=project.sampler,
        runtime=runtime,
        num_rounds=project.config.rounds.num_rounds,
        seed=project.seed,
        privacy=privacy,
        evaluate=evaluate_of(project, privacy),
        evaluate_every=project.config.evaluation.every,
    )
    return train(run, project.round_.init(project.starting_weights()))


def admitted(folder, bank, authority, terms):
    """The partner's home, with keys and certificate."""
    home = Home(folder / "homes" / bank, bank)
    request = EnrolmentRequest.of(bank, new_keys(home.path))
    accept(authority.admit(request, terms), home.path)
    return home


def invited(home, authority, terms):
    """Home and invitation of a partner that has approved the plan."""
    invitation = authority.invitation(home.client_id, terms)
    pin(home.pins_path, invitation)
    policy = policy_for(
        terms.plan,
        max_epsilon=float("inf"),  # a repeated simulation promises nothing
        allow_central=bool(terms.plan.privacy)
        and terms.plan.privacy.trust == "central",
        allow_exact_metrics=True,
    )
    write_policy(home.policy_path, policy.approving(terms.plan))
    return home, invitation


def take_part(folder, home, invitation):
    rows = str(folder / f"{home.client_id}.csv")
    local = local_rows(rows, home, tell=lambda event: None)
    with Transport(caller_of(invitation, home)) as calls:
        Agent(calls, home, invitation, local).run()


def served(folder, config, *, run_id="run"):
    """The run of ``config`` between three partners and an aggregator."""
    plan = plan_for(deployed(config, folder=folder), operator="test")
    project = deployed(config, folder=folder)
    authority = init(folder / "operator", name="credit", hosts=["localhost"])
    rounds = Rounds(
        Journal(folder / "journal"),
        run_id=run_id,
        plan_sha256=plan.sha256,
        folder=folder / "spool",
    )
    server = Server(Served(rounds, authority, plan.canonical()), address="127.0.0.1:0")
    with serving(server) as port, ThreadPoolExecutor(len(BANKS)) as pool:
        terms = Terms(plan, f"127.0.0.1:{port}", "localhost")
        homes = [admitted(folder, bank, authority, terms) for bank in BANKS]
        running = [
            pool.submit(take_part, folder, *invited(home, authority, terms))
            for home in homes
        ]
        for one in running:  # who fails is not waited for
            one.add_done_callback(lambda ended: ended.exception() and rounds.stop())
        runtime = GrpcRuntime(
            rounds,
            run_id=run_id,
            service=config.service,
            secure=secure_terms(config, authority, plan_sha256=plan.sha256),
        )
        try:
            result = result_of(project, runtime, folder)
        except RunStoppedError:
            result = None
        rounds.finish("finished", "done")
        for ended in running:
            ended.result(60)
    return result


def simulated(federation, config):
    """The same run on this machine, client after client."""
    folder = federation / "simulated"
    folder.mkdir()
    one_by_one = CompiledRuntime(strategy="graph", chunk_size=1, num_workers=1)
    return result_of(build(config, folder=federation), one_by_one, folder)


def assert_alike(found, expected):
    for own, other in zip(
        tf.nest.flatten(found.state), tf.nest.flatten(expected.state), strict=True
    ):
        # The last bits depend on the order in which clients are added up.
        np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("client", "privacy", "evaluation"),
    [
        (PLAIN, None, {"held_out_fraction": 0.25}),
        (POISSON, PRIVACY, {"held_out_fraction": 0.25, "epsilon": 2.0}),
    ],
    ids=["fed_avg", "dp_sgd"],
)
def test_deployed_equals_simulated(federation, client, privacy, evaluation):
    config = config_of(client, privacy, evaluation=evaluation)
    expected = simulated(federation, config)
    found = served(federation, config)
    assert_alike(found, expected)
    for own, other in zip(found.reports, expected.reports, strict=True):
        names = {name for name in own.metrics if name.startswith("held_out_")}
        assert "held_out_accuracy" in names
        assert ("held_out_loss" in names) == (privacy is None)
        for name in names:
            assert own.metrics[name] == pytest.approx(other.metrics[name], rel=1e-5)


def test_compressed_updates_of_a_deployed_run_are_those_of_the_simulated(federation):
    rounds = {"num_rounds": 3, "update_compression": "top_k", "kept_fraction": 0.2}
    config = config_of(POISSON, PRIVACY, rounds=rounds)
    expected = simulated(federation, config)
    found = served(federation, config)
    assert_alike(found, expected)
    plan = plan_for(deployed(config, folder=federation), operator="test")
    for bank in BANKS:
        lines = (federation / "homes" / bank / "audit.jsonl").read_text().splitlines()
        sent = [json.loads(line) for line in lines]
        sizes = {entry["bytes"] for entry in sent if entry["what"] == "sending"}
        assert sizes == {num_bytes(plan.contribution)}
    plain = sum(spec.plain_bytes for spec in plan.contribution)
    assert num_bytes(plan.contribution) < 0.6 * plain


CENTRAL = PRIVACY | {"trust": "central", "mechanism": "discrete_gaussian"}
ONE_STEP = {"sampling_rate": 0.25, "expected_batch_size": 10.0}
FED_SGD = {"num_rounds": 2, "algorithm": "fed_sgd"}


def test_whole_numbers_that_the_aggregator_noises_are_deployed_as_simulated(federation):
    config = config_of(ONE_STEP, CENTRAL, rounds=FED_SGD)
    expected = simulated(federation, config)
    found = served(federation, config)
    first, same = (
        np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(result.state)])
        for result in (found, expected)
    )
    # Sums of whole numbers: equal to the bit where the clients' gradients are, and a
    # few units of the grid apart where those differ in their last bits.
    np.testing.assert_allclose(first, same, atol=1e-5)


SECURE = FED_SGD | {"secure_aggregation": True}
SHARED = PRIVACY | {"trust": "distributed"}


def test_masked_sums_of_a_deployed_run_are_those_of_the_simulated(federation):
    config = config_of(ONE_STEP, SHARED, rounds=SECURE)
    expected = simulated(federation, config)
    found = served(federation, config)
    for own, other in zip(
        tf.nest.flatten(found.state), tf.nest.flatten(expected.state), strict=True
    ):
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_shares_of_noise_for_release_are_charged_at_each_bank(federation):
    config = config_of(ONE_STEP, SHARED, rounds=SECURE, repeats=False)
    served(federation, config)
    promised = plan_for(deployed(config, folder=federation), operator="test")
    for bank in BANKS:
        lines = (federation / "homes" / bank / "audit.jsonl").read_text().splitlines()
        sent = [json.loads(line) for line in lines]
        spent = [one["spent"]["epsilon"] for one in sent if one["what"] == "sending"]
        assert len(spent) == 2
        assert spent[-1] == pytest.approx(promised.privacy.epsilon, rel=1e-3)


def test_an_aggregator_that_adds_the_noise_has_a_key_for_each_run(federation):
    config = config_of(ONE_STEP, CENTRAL, rounds=FED_SGD, repeats=False)
    home = Federation(federation / "home", federation / "federation.toml", "test")
    home.project.write_text(
        toml_text(config.model_dump(mode="json", exclude_none=True))
    )
    plan = plan_for(deployed(config, folder=federation), operator="test")
    init(home.path / "authority", name="credit", hosts=["localhost"])
    home.write_plan(plan)
    assert plan.privacy.mechanism["details"]["noise_source"] == "cryptographic"
    runs = [prepared(home, None) for _ in range(2)]
    (mechanism,) = runs[0].project.round_.mechanisms
    assert mechanism.is_released
    keys = sorted((federation / "state" / "noise").glob("aggregator-*.key"))
    assert len({key.read_bytes() for key in keys}) == 2
    for run_ in runs:
        assert prepared(home, run_.run_id).run_id == run_.run_id
        forget_own_key(plan, run_.folder)
        with pytest.raises(PrivacyError, match="is gone"):
            prepared(home, run_.run_id)
        assert prepared(home, run_.run_id, draws=False).run_id == run_.run_id
    assert not list((federation / "state" / "noise").glob("*.key"))


def test_noise_for_release_differs_from_run_to_run_and_is_charged_at_each_bank(
    federation,
):
    evaluation = {"every": 2, "held_out_fraction": 0.25, "epsilon": 2.0}
    config = config_of(POISSON, PRIVACY, repeats=False, evaluation=evaluation)
    result = served(federation, config)
    simulated = build(config, folder=federation)
    (federation / "simulated").mkdir()
    other = result_of(simulated, CompiledRuntime(), federation / "simulated")
    first = tf.nest.flatten(result.state.weights)[0]
    assert not np.array_equal(first, tf.nest.flatten(other.state.weights)[0])
    for bank in BANKS:
        lines = (federation / "homes" / bank / "audit.jsonl").read_text().splitlines()
        sent = [json.loads(line) for line in lines]
        left = [entry for entry in sent if entry["what"] == "sending"]
        kinds = [(entry["round"], entry["kind"]) for entry in left]
        assert kinds == [(0, "train"), (1, "train"), (1, "evaluate")]
        spent = [entry["spent"]["epsilon"] for entry in left]
        assert spent == sorted(set(spent))
        promised = plan_for(deployed(config, folder=federation), operator="test")
        assert spent[-1] == pytest.approx(promised.privacy.epsilon, rel=1e-3)
    assert not list((federation / "state" / "noise").glob("*.key"))
