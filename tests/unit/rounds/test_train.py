from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.mean import unweighted_mean
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.core.errors import (
    BudgetExhaustedError,
    ConfigError,
    DivergedError,
    LedgerError,
    PrivacyError,
)
from fedtrain.data.cohorts import full_participation, uniform_sampler
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.runtimes.compiled import CompiledRuntime

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)
RUNTIME = CompiledRuntime(num_workers=1)
ROUND = fed_avg(local_sgd(MODEL, sgd(0.1), Epochs(batch_size=4)))


def population(sizes, sensitivity="public"):
    random = seeds.generator(seeds.root(2))
    clients = {
        f"client-{i}": Examples(
            features=random.normal(size=[size, 4]).astype(np.float32),
            labels=random.integers(0, 3, size),
        )
        for i, size in enumerate(sizes)
    }
    return from_clients(clients, sensitivity=sensitivity)


def plain_run(**changes):
    run = TrainingRun(
        round_=ROUND,
        dataset=population([5, 9, 0, 7]),
        sampler=uniform_sampler(cohort_size=2),
        runtime=RUNTIME,
        num_rounds=6,
        seed=SEED,
    )
    return replace(run, **changes)


def first_state(round_=ROUND):
    return round_.init(MODEL.init(SEED))


def bits(state):
    return [leaf.numpy().tobytes() for leaf in tf.nest.flatten(state)]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first = train(plain_run(), first_state()).state
    again = train(plain_run(), first_state()).state
    other = train(plain_run(seed=seeds.root(6)), first_state()).state
    assert bits(first) == bits(again)
    assert bits(first) != bits(other)


@pytest.mark.parametrize("every", [1, 2])
def test_a_run_cut_anywhere_and_resumed_gives_the_same_bits(tmp_path, every):
    whole = train(plain_run(), first_state()).state
    store = CheckpointStore(tmp_path, every=every)

    class PowerCutError(Exception):
        pass

    def cut(report, state):
        if report.round_number == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(plain_run(checkpoints=store, on_round=[cut]), first_state())
    resumed = train(plain_run(checkpoints=store), first_state())
    assert bits(resumed.state) == bits(whole)
    numbers = [report.round_number for report in resumed.reports]
    assert numbers == [2, 3, 4, 5]


def test_a_finished_run_resumes_to_itself(tmp_path):
    store = CheckpointStore(tmp_path)
    done = train(plain_run(checkpoints=store), first_state())
    again = train(plain_run(checkpoints=store), first_state())
    assert bits(again.state) == bits(done.state)
    assert again.reports == ()


def test_clients_without_rows_are_skipped_and_counted():
    run = plain_run(sampler=full_participation(), num_rounds=1)
    (report,) = train(run, first_state()).reports
    assert report.cohort_size == 4
    assert report.skipped_clients == 1


def test_evaluation_comes_every_k_rounds_and_at_the_end():
    run = plain_run(evaluate=lambda state: {"test_loss": 1.0}, evaluate_every=4)
    reports = train(run, first_state()).reports
    evaluated = [r.round_number for r in reports if "test_loss" in r.metrics]
    assert evaluated == [3, 5]
    assert all("loss" in r.metrics for r in reports)


def test_a_report_counts_what_its_evaluation_was_charged():
    privacy = RecordedPrivacy()

    def paid(state):
        privacy.charges.append("scores")
        return {}

    run = private_run(privacy, evaluate=paid, evaluate_every=2)
    reports = train(run, first_state(PRIVATE_ROUND)).reports
    assert [r.spent_epsilon for r in reports[:4]] == [1.0, 3.0, 4.0, 6.0]


def test_divergence_names_the_round_and_saves_nothing_of_it(tmp_path):
    hot = fed_avg(local_sgd(MODEL, sgd(3e38), Epochs(batch_size=4)))
    store = CheckpointStore(tmp_path)
    run = plain_run(round_=hot, checkpoints=store)
    with pytest.raises(DivergedError, match=r"Round [1-9] .*learning rate"):
        train(run, first_state())
    latest = store.latest(first_state())
    assert latest is None or all(
        np.isfinite(leaf).all() for leaf in tf.nest.flatten(latest.state.weights)
    )


class Plan(NamedTuple):
    num_clients: int = 4
    num_rounds: int = 9


class RecordedPrivacy:
    """Stands for RunPrivacy: keeps what it was asked, stops at a budget."""

    is_private = False

    def __init__(self, budget=99, sampler=None):
        self.charges = []
        self.budget = budget
        self.plan = Plan()
        self.mechanisms = PRIVATE_ROUND.mechanisms
        self.sampler = sampler or uniform_sampler(cohort_size=2)

    def before_round(self, round_number, client_ids, input_hash):
        if len(self.charges) == self.budget:
            raise BudgetExhaustedError("the budget is spent")
        self.charges.append((round_number, tuple(client_ids), input_hash))
        return float(len(self.charges))

    def spent_so_far(self):
        return float(len(self.charges))

    def head(self):
        return {"length": len(self.charges)}

    def expect(self, head):
        if head["length"] > len(self.charges):
            raise LedgerError("the ledger is shorter than it was")


def private_round(**changes):
    settings = {
        "clipping_norm": 1.0,
        "noise_multiplier": 1.0,
        "sampling_rate": 0.5,
        "local_steps": 2,
        "expected_batch_size": 4,
    }
    work = dp_sgd(MODEL, sgd(0.1), **(settings | changes))
    return fed_avg(work, aggregator=unweighted_mean())


PRIVATE_ROUND = private_round()


def private_run(privacy, **changes):
    return plain_run(round_=PRIVATE_ROUND, privacy=privacy, **changes)


def test_every_round_is_charged_with_its_cohort_before_it_runs():
    privacy = RecordedPrivacy()
    reports = train(private_run(privacy), first_state(PRIVATE_ROUND)).reports
    assert [number for number, _, _ in privacy.charges] == list(range(6))
    assert all(len(ids) == 2 for _, ids, _ in privacy.charges)
    assert len({digest for *_, digest in privacy.charges}) == 6
    assert [report.spent_epsilon for report in reports] == [1, 2, 3, 4, 5, 6]


def test_at_the_budget_no_data_is_read():
    privacy = RecordedPrivacy(budget=2)
    ran = []

    class Watched:
        def run_round(self, round_, state, cohort, seed):
            ran.append(int(state.round_number))
            return RUNTIME.run_round(round_, state, cohort, seed)

    with pytest.raises(BudgetExhaustedError):
        train(private_run(privacy, runtime=Watched()), first_state(PRIVATE_ROUND))
    assert ran == [0, 1]


def test_a_retried_round_asks_with_the_same_input_hash(tmp_path):
    store = CheckpointStore(tmp_path, every=4)
    privacy = RecordedPrivacy(budget=6)
    with pytest.raises(BudgetExhaustedError):
        train(private_run(privacy, checkpoints=store, num_rounds=9), first_state())
    privacy.budget = 99
    train(private_run(privacy, checkpoints=store, num_rounds=7), first_state())
    assert privacy.charges[4:6] == privacy.charges[6:8]


def test_a_shortened_ledger_stops_the_run(tmp_path):
    store = CheckpointStore(tmp_path)
    train(private_run(RecordedPrivacy(), checkpoints=store), first_state(PRIVATE_ROUND))
    with pytest.raises(LedgerError):
        train(private_run(RecordedPrivacy(), checkpoints=store), first_state())


def test_a_client_that_adds_noise_is_asked_even_without_rows():
    everyone = full_participation()
    privacy = RecordedPrivacy(sampler=everyone)
    run = private_run(privacy, sampler=everyone, num_rounds=1)
    (report,) = train(run, first_state(PRIVATE_ROUND)).reports
    assert report.skipped_clients == 0


def test_a_mechanism_without_a_ledger_is_refused():
    with pytest.raises(PrivacyError, match="charge the ledger"):
        private_run(None)


def test_a_ledger_without_a_mechanism_is_refused():
    with pytest.raises(ConfigError, match="no privacy mechanism"):
        plain_run(privacy=RecordedPrivacy())


def test_exact_metrics_of_private_data_are_refused():
    telling = private_round(reports_metrics=True)
    data = population([5, 6], sensitivity="private")
    with pytest.raises(PrivacyError, match="reports_metrics"):
        plain_run(round_=telling, privacy=RecordedPrivacy(), dataset=data)
    plain_run(round_=telling, privacy=RecordedPrivacy())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sampler", {"sampler": full_participation()}),
        ("num_rounds", {"num_rounds": 10}),
        ("num_clients", {"dataset": population([5, 6, 7])}),
        ("is_private", {"dataset": population([5, 9, 0, 7], sensitivity="private")}),
        ("mechanisms", {"round_": private_round(noise_multiplier=0.01)}),
    ],
)
def test_a_promise_about_another_run_is_refused(name, changes):
    with pytest.raises(PrivacyError, match=name):
        replace(private_run(RecordedPrivacy()), **changes)
