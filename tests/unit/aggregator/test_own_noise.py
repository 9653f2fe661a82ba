import pytest
from rich.console import Console

from aggregator.home import Federation
from aggregator.open_run import OpenRun
from aggregator.own_noise import forget_own_key, own_key
from aggregator.serve import _refuse_ended
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.privacy.noise_key import forget_noise_key, key_fingerprint, noise_key
from fedtrain.privacy.noise_key import noise_key_path as path_of
from fedtrain.project.run_folder import NOISE_KEY, RunFolder
from fedtrain.wire.plan import PlanPrivacy
from tests.unit.aggregator.light_round import opened
from tests.unit.aggregator.served_run import plan

CENTRAL = PlanPrivacy(
    unit="example",
    trust="central",
    neighboring_relation="add_or_remove_one",
    delta=1e-3,
    epsilon=1.0,
    mechanism={"name": "discrete_gaussian"},
    accountant="PLD",
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A plan with trust central, and the folder of a run of it."""
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    folder = RunFolder(tmp_path / "light-1")
    folder.path.mkdir()
    return plan().model_copy(update={"privacy": CENTRAL}), folder


def test_a_run_keeps_its_key_and_notes_its_fingerprint(run, tmp_path):
    plan, folder = run
    key = own_key(plan, folder, is_new=True)
    assert own_key(plan, folder, is_new=False) == key
    assert folder.read_json(folder.info) == {NOISE_KEY: key_fingerprint(key)}
    other = RunFolder(tmp_path / "light-2")
    other.path.mkdir()
    assert own_key(plan, other, is_new=True) != key


def test_a_key_that_is_lost_or_replaced_stops_the_run(run):
    plan, folder = run
    own_key(plan, folder, is_new=True)
    path = path_of(f"aggregator-{folder.path.name}")
    forget_noise_key(path)
    with pytest.raises(PrivacyError, match=r"is gone.*runs stop"):
        own_key(plan, folder, is_new=False)
    assert not path.exists()
    noise_key(path)
    with pytest.raises(PrivacyError, match="not the one that the run began with"):
        own_key(plan, folder, is_new=False)
    forget_own_key(plan, folder)
    assert not path.exists()


def test_noise_of_others_needs_no_key(run):
    plan, folder = run
    local = CENTRAL.model_copy(update={"trust": "local"})
    seeded = plan.model_copy(update={"simulation_seed": 3})
    for one in (plan.model_copy(update={"privacy": local}), seeded):
        assert own_key(one, folder, is_new=False) == b""
        forget_own_key(one, folder)


def test_an_ended_run_that_is_served_again_forgets_its_key(run, tmp_path):
    plan, _ = run
    home = Federation(tmp_path / "home", tmp_path / "federation.toml", "Test")
    folder = RunFolder(home.runs / "run")
    folder.path.mkdir(parents=True)
    home.write_plan(plan)
    own_key(plan, folder, is_new=True)
    journal, rounds = opened(tmp_path)
    try:
        rounds.finish("stopped", "enough")  # and was killed before it could forget
        with pytest.raises(ConfigError, match="has ended"):
            _refuse_ended(home, OpenRun(rounds, {}, None), Console(quiet=True))
    finally:
        journal.close()
    assert not path_of("aggregator-run").exists()
