"""An operator ends a served run for good: partners are told, and weights are left."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from aggregator import open_run
from aggregator.authority import init
from aggregator.home import Federation, current_run, found
from aggregator.planning import plan_for
from aggregator.serve import serve
from aggregator.stopping import stop_run
from clients.agent import Agent
from clients.home import Home
from clients.local import local_rows
from clients.policy import policy_for, write_policy
from clients.transport import Transport, caller_of
from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import ConfigError, StoppedError
from fedtrain.project.deployed import deployed
from fedtrain.project.load import load_run
from fedtrain.wire.acceptance import accept
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys
from tests.unit.aggregator.small_project import FRAME, SCHEMA

pytestmark = pytest.mark.network
# Far more rounds than are ever run: the run ends because somebody ends it.
PROJECT = """
name = "small"
seed = 3
[data]
path = "rows"
schema_path = "schema.json"
[model]
name = "dense_classifier"
[rounds]
num_rounds = 1000000
[client]
learning_rate = 0.1
batch_size = 4
local_epochs = 1
[evaluation]
held_out_fraction = 0.5
[stop]
metric = "held_out_loss"
[tracking]
tensorboard = false
[service]
clients = ["bank-a"]
rows_per_client = 8
address = "{address}"
page = "{page}"
deadline_s = 1800.0
max_deadlines = 1
"""


@pytest.fixture
def federation(tmp_path, monkeypatch):
    """An operator's folder, and the project file and rows beside it."""
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(open_run, "_TELL_S", 1800.0)  # a slow machine's partner
    address, page = free_addresses(2)
    project = tmp_path / "federation.toml"
    project.write_text(PROJECT.format(address=address, page=page))
    SCHEMA.save(tmp_path / "schema.json")
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    made = Federation(tmp_path / "operator", project, "Test")
    config = made.config()
    plan = plan_for(deployed(config, folder=tmp_path), operator="Test")
    init(made.path / "authority", name=config.name, hosts=["localhost"])
    made.write_plan(plan)
    found(made)
    return made


def take_part(federation, folder):
    home = Home(folder / "bank-a", "bank-a")
    request = EnrolmentRequest.of("bank-a", new_keys(home.path))
    invitation = federation.authority().admit(request, federation.terms())
    accept(invitation, home.path)
    policy = policy_for(
        federation.plan(), max_epsilon=float("inf"), allow_exact_metrics=True
    )
    write_policy(home.policy_path, policy.approving(federation.plan()))
    local = local_rows(str(folder / "rows.csv"), home, tell=lambda event: None)
    with Transport(caller_of(invitation, home)) as calls:
        Agent(calls, home, invitation, local).run()


def end_after_two_rounds(federation, given_up):
    while not list(federation.runs.glob("*/checkpoints/round-00000002.ckpt")):
        if given_up.wait(0.1):
            return ""
    return stop_run(federation, "enough", is_final=True, wait_s=1800.0)


def test_a_run_that_is_ended_for_good_leaves_its_weights(
    federation, tmp_path, monkeypatch
):
    given_up = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        partner = pool.submit(take_part, federation, tmp_path)
        operator = pool.submit(end_after_two_rounds, federation, given_up)
        for one in (partner, operator):  # who fails is not waited for
            one.add_done_callback(lambda ended: ended.exception() and given_up.set())
        try:
            with pytest.raises(StoppedError, match=r"enough.*weights after \d+ rounds"):
                serve(federation, console=Console(quiet=True))
        finally:
            given_up.set()
        assert "not resumable" in operator.result(1800)
        with pytest.raises(StoppedError, match="enough"):
            partner.result(1800)
    run = load_run(federation.runs / current_run(federation))
    assert run.status == "stopped"
    assert run.summary["rounds"] >= 2
    assert {"trainable/0/kernel"} <= set(run.weights)
    assert run.summary["stop"]["metric"] == "held_out_loss"
    assert run.folder.best_weights.is_file()
    monkeypatch.setattr(open_run, "_TELL_S", 0.0)  # the partner has gone
    with pytest.raises(ConfigError, match=r"has ended \(enough\).*fedtrain export"):
        serve(federation, console=Console(quiet=True))
