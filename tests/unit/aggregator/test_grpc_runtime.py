import hashlib
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from aggregator import exporting
from aggregator import trained as trained_module
from aggregator.exporting import check_export
from aggregator.grpc_runtime import GrpcRuntime
from aggregator.rounds import RunStoppedError
from aggregator.trained import ServedRun, trained
from fedtrain.core import seeds
from fedtrain.core.errors import (
    CheckpointError,
    ConfigError,
    RefusedExportError,
    StoppedError,
    TooFewClientsError,
)
from fedtrain.privacy.ledger import Ledger
from fedtrain.project.run import RunInterruptedError
from fedtrain.project.run_folder import RunFolder
from fedtrain.project.run_privacy import run_privacy_of
from fedtrain.project.scores import evaluate_of
from fedtrain.project.stored import stored_toml
from fedtrain.rounds import checkpoint_file
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


class Finishing:
    """Rounds of a run that has nothing left to do; notes what partners are told."""

    def __init__(self):
        self.told = []

    def committed(self, round_number, state_sha256):
        self.told.append((round_number, state_sha256))

    def finish(self, status, text):
        self.told.append(status)


def test_a_run_whose_checkpoints_are_all_damaged_has_not_finished(
    project, tmp_path, monkeypatch
):
    monkeypatch.setattr(trained_module, "run", lambda *args, **kwargs: {"rounds": 3})
    folder, rounds = RunFolder(tmp_path / "run"), Finishing()
    served, console = ServedRun(project, folder), Console(quiet=True)
    folder.checkpoints.mkdir(parents=True)
    newest = folder.checkpoints / "round-00000003.ckpt"
    newest.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"Every checkpoint.*backup"):
        trained(served, rounds, console=console)
    assert rounds.told == []
    with (folder.checkpoints / "round-00000002.ckpt").open("wb") as file:
        state = np.arange(3.0)
        header = {"round_number": 2, "ledger_head": None}
        checkpoint_file.write(file, header, {"state_0": state})
    trained(served, rounds, console=console)
    assert rounds.told == [(1, hashlib.sha256(state).hexdigest()), "finished"]


class Stopping:
    """Rounds of an aggregator that was asked to stop."""

    def collect(self, call):
        raise RunStoppedError("stopping")


def test_who_ends_a_run_for_good_is_told_apart_from_who_pauses_it(project):
    state = project.round_.init(project.starting_weights())
    cohort = [CohortClient("bank-a", project.split.train.client(0), ())]
    said = [None, "enough"]
    service = project.config.service
    runtime = GrpcRuntime(
        Stopping(), run_id="run", service=service, ended=lambda: said.pop(0)
    )
    for expected in (RunStoppedError, StoppedError):
        with pytest.raises(expected):
            runtime.run_round(project.round_, state, cohort, seeds.root(0))


def test_each_further_attempt_at_an_evaluation_is_charged_once(tmp_path):
    paid = {"held_out_fraction": 0.5, "epsilon": 1.0}
    project = small_project(tmp_path, evaluation=paid)
    rounds, ledger = Rounds(), Ledger(tmp_path / "ledger.jsonl")
    runtime = GrpcRuntime(rounds, run_id="run", service=project.config.service)
    runtime.charges = run_privacy_of(project, ledger, "run")
    state = project.round_.init(project.starting_weights())
    project = replace(project, runtime=runtime)
    after_one = state._replace(round_number=state.round_number + 1)
    with pytest.raises(AskedError):
        evaluate_of(project, runtime.charges)(after_one)
    assert (rounds.call.kind, rounds.call.round_number) == ("evaluate", 0)
    assert rounds.call.cohort == ("bank-a",)
    lengths = [ledger.head()["length"]]
    for attempt in (0, 1, 1, 2):
        rounds.call.before_attempt(attempt)
        lengths.append(ledger.head()["length"])
    assert lengths == [1, 1, 2, 2, 3]


class Unanswered:
    """Rounds in which too few answer."""

    def collect(self, call):
        raise TooFewClientsError("too few")


def test_an_evaluation_that_too_few_answer_reports_no_score(tmp_path):
    held_out = {"held_out_fraction": 0.5}
    project = small_project(tmp_path, privacy=None, evaluation=held_out)
    service = project.config.service
    runtime = GrpcRuntime(Unanswered(), run_id="run", service=service)
    state = project.round_.init(project.starting_weights())
    after_one = state._replace(round_number=state.round_number + 1)
    assert evaluate_of(replace(project, runtime=runtime), None)(after_one) == {}


def test_an_export_that_could_only_fail_is_refused_before_the_run(project, tmp_path):
    with pytest.raises(ConfigError, match=r"export\.public_rows"):
        check_export(project)
    plain = small_project(tmp_path, privacy=None)
    given = plain.config.export.model_copy(update={"public_rows": "rows.csv"})
    plain = replace(plain, config=plain.config.model_copy(update={"export": given}))
    with pytest.raises(ConfigError, match="accept_no_privacy"):
        check_export(plain)


def test_an_export_that_fails_says_that_the_run_is_finished(tmp_path, monkeypatch):
    def fails(run, *, told):
        raise ValueError("no room")

    monkeypatch.setattr(exporting, "export_run", fails)
    with pytest.raises(RefusedExportError, match=r"finished.*no room.*fedtrain export"):
        exporting.exported(tmp_path / "run", console=Console(quiet=True))


def test_a_run_folder_holds_no_password_of_the_database(tmp_path):
    project = small_project(tmp_path, database="postgresql+psycopg://me:secret@host/db")
    stored = stored_toml(project)
    assert "rows_per_client" in stored
    assert "secret" not in stored
