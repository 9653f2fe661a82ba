import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.early_stop import EarlyStop, is_over, watched
from fedtrain.rounds.train import train
from tests.unit.rounds.test_train import first_state, plain_run

STOP = EarlyStop(metric="test_accuracy", patience=2)
VALUES = [0.5, 0.7, 0.6, 0.7, 0.9, 0.9]


def scored(values):
    """Scores a state by the number of rounds that led to it."""
    return lambda state: {"test_accuracy": values[int(state.round_number) - 1]}


def stopping_run(**changes):
    return plain_run(stop=STOP, evaluate=scored(VALUES), **changes)


def test_patience_runs_out_and_the_best_weights_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, every=3)  # no checkpoint is due where it ends
    states = []
    run = stopping_run(
        checkpoints=store, on_round=[lambda _, state: states.append(state)]
    )
    result = train(run, first_state())
    assert [report.round_number for report in result.reports] == [0, 1, 2, 3]
    saved = store.latest(first_state())
    assert saved.round_number == 4
    assert (saved.best.value, saved.best.rounds_done) == (0.7, 2)
    for own, kept in zip(
        tf.nest.flatten(states[1].weights),
        tf.nest.flatten(saved.best.weights),
        strict=True,
    ):
        np.testing.assert_array_equal(own, kept)
    assert train(run, first_state()).reports == ()


def test_a_resumed_run_remembers_how_long_nothing_was_better(tmp_path):
    store = CheckpointStore(tmp_path)
    train(stopping_run(checkpoints=store, num_rounds=3), first_state())
    reports = train(stopping_run(checkpoints=store), first_state()).reports
    assert [report.round_number for report in reports] == [3]


def test_without_patience_all_rounds_are_run_and_the_best_is_known(tmp_path):
    store = CheckpointStore(tmp_path)
    run = replace(stopping_run(checkpoints=store), stop=replace(STOP, patience=None))
    assert len(train(run, first_state()).reports) == 6
    assert store.latest(first_state()).best.rounds_done == 5


@pytest.mark.parametrize(
    ("metric", "goal", "values", "best"),
    [
        ("held_out_loss", None, [3.0, 2.0, 2.5], 2.0),
        ("test_brier", None, [0.3, 0.1, 0.2], 0.1),
        ("test_gain", None, [1.0, 3.0, 2.0], 3.0),
        ("error_free", "max", [1.0, 3.0, 2.0], 3.0),
        ("test_accuracy", None, [math.nan, 0.5, math.nan], 0.5),
        ("test_accuracy", None, [0.5, 0.505, 0.5], 0.5),
    ],
)
def test_better_is_what_the_metric_means(metric, goal, values, best):
    stop = EarlyStop(metric=metric, patience=5, min_delta=0.01, goal=goal)
    found = None
    for number, value in enumerate(values, start=1):
        found = watched(
            stop, found, metrics={metric: value}, rounds_done=number, weights=None
        )
    assert found.value == best
    assert not is_over(stop, found)


def test_rounds_without_an_evaluation_do_not_count():
    first = watched(
        STOP, None, metrics={"test_accuracy": 0.5}, rounds_done=1, weights=None
    )
    assert watched(STOP, first, metrics={}, rounds_done=2, weights=None) is first


def test_another_metric_begins_anew():
    worst = watched(
        STOP, None, metrics={"test_accuracy": 0.9}, rounds_done=1, weights=None
    )._replace(num_worse=2)
    assert is_over(STOP, worst)
    other = replace(STOP, metric="test_ks")
    assert not is_over(other, worst)
    found = watched(other, worst, metrics={"test_ks": 0.1}, rounds_done=2, weights=None)
    assert (found.metric, found.value, found.num_worse) == ("test_ks", 0.1, 0)


def test_no_patience_at_all_is_refused():
    with pytest.raises(ConfigError, match="min_delta"):
        EarlyStop(metric="test_loss", min_delta=-1.0)
