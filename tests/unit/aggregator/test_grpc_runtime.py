from dataclasses import replace

import pytest
from rich.console import Console

from aggregator import trained as trained_module
from aggregator.grpc_runtime import GrpcRuntime
from aggregator.rounds import RunStoppedError
from aggregator.trained import ServedRun, trained
from fedtrain.core import seeds
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.run import RunInterruptedError
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.run_privacy import run_privacy_of
from fedtrain.project.stored import stored_toml
from fedtrain.rounds.keepers import AsksAgain
from fedtrain.rounds.runtime import CohortClient
from tests.unit.aggregator.small_project import small_project


class AskedError(Exception):
    pass


class Rounds:
    """Notes what is asked of the cohort."""

    def collect(self, call):
        self.call = call
        raise AskedError


@pytest.fixture
def project(tmp_path):
    return small_project(tmp_path)


def test_each_further_attempt_is_charged_once(project, tmp_path):
    rounds, ledger = Rounds(), Ledger(tmp_path / "ledger.jsonl")
    runtime = GrpcRuntime(rounds, run_id="run", service=project.config.service)
    assert isinstance(runtime, AsksAgain)
    runtime.charges = run_privacy_of(project, ledger, "run")
    state = project.round_.init(project.starting_weights())
    cohort = [CohortClient("bank-a", project.split.train.client(0), ())]
    with pytest.raises(AskedError):
        runtime.run_round(project.round_, state, cohort, seeds.root(0))
    lengths = []
    for attempt in (0, 1, 1, 2):  # the loop itself has paid for the first
        rounds.call.before_attempt(attempt)
        lengths.append(ledger.head()["length"])
    assert lengths == [0, 1, 1, 2]


def test_an_interrupted_run_says_how_it_is_served_again(project, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise RunInterruptedError("fedtrain simulate --resume")

    monkeypatch.setattr(trained_module, "run", interrupted)
    served = ServedRun(replace(project), RunFolder(tmp_path / "run"))
    with pytest.raises(RunStoppedError, match="fedtrain-aggregator serve") as caught:
        trained(served, Rounds(), console=Console(quiet=True))
    assert caught.value.exit_code == 130


def test_a_run_folder_holds_no_password_of_the_database(tmp_path):
    project = small_project(tmp_path, database="postgresql+psycopg://me:secret@host/db")
    stored = stored_toml(project)
    assert "rows_per_client" in stored
    assert "secret" not in stored
