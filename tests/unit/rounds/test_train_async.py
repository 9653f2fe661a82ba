from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.core.errors import BudgetExhaustedError, ConfigError, DivergedError
from fedtrain.data.cohorts import full_participation, uniform_sampler
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.data.sets import load
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.async_run import AsyncRun
from fedtrain.rounds.checkpoint import CheckpointStore
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import empty_total
from fedtrain.rounds.train import TrainingRun, train
from fedtrain.rounds.train_async import train_async
from fedtrain.runtimes.asynchronous import thread_executor
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import contribute

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)
WORK = local_sgd(MODEL, sgd(0.1), Epochs(batch_size=4))
ROUND = fed_avg(WORK)


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
    run = AsyncRun(
        round_=ROUND,
        dataset=population([5, 9, 3, 7, 4, 6]),
        sampler=uniform_sampler(cohort_size=1),
        executor=None,
        num_rounds=6,
        buffer_goal=2,
        concurrency=3,
        seed=SEED,
    )
    return replace(run, **changes)


def first_state(round_=ROUND):
    return round_.init(MODEL.init(SEED))


NOTHING = empty_total(ROUND.client_work, ROUND.broadcast(first_state()))


def leaves(state):
    return [np.asarray(leaf) for leaf in tf.nest.flatten(state.weights)]


def test_one_client_at_a_time_is_a_cohort_of_one(disordered):
    dataset = population([5, 9, 3, 7])
    sampler = uniform_sampler(cohort_size=1)
    with thread_executor() as executor:
        run = plain_run(
            dataset=dataset, executor=executor, buffer_goal=1, concurrency=1
        )
        actual = train_async(run, first_state())
    expected = train(
        TrainingRun(
            round_=ROUND,
            dataset=dataset,
            sampler=sampler,
            runtime=CompiledRuntime(num_workers=1),
            num_rounds=6,
            seed=SEED,
        ),
        first_state(),
    )
    for ours, theirs in zip(leaves(actual.state), leaves(expected.state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    losses = [
        [r.metrics["loss"] for r in result.reports] for result in (actual, expected)
    ]
    np.testing.assert_allclose(*losses, atol=1e-6)
    assert {r.metrics["staleness_max"] for r in actual.reports} == {0.0}


def test_an_update_is_the_discounted_mean_of_late_contributions(disordered):
    """Worked out again from what arrived: FedBuff's line with a weighted mean."""
    seen, arrived = [first_state()], []

    def compute(work, message, client, seed):
        contribution, state = contribute(work, message, client, seed)
        arrived.append((int(message.round_number), contribution))
        return contribution, state

    run = plain_run(
        executor=disordered(seed=3, compute=compute),
        staleness_discount=lambda late: 1.0 / (1.0 + late),
        on_round=[lambda report, state: seen.append(state)],
    )
    reports = train_async(run, first_state()).reports
    assert max(report.metrics["staleness_max"] for report in reports) >= 2
    for number, before in enumerate(seen[:-1]):
        group = arrived[2 * number : 2 * number + 2]
        factors = [1.0 / (1.0 + number - started) for started, _ in group]
        sizes = [float(contribution.weight) for _, contribution in group]
        weight = np.dot(factors, sizes)
        for leaf, was, now in zip(
            range(2), leaves(before), leaves(seen[number + 1]), strict=True
        ):
            flat = [np.asarray(tf.nest.flatten(c.update)[leaf]) for _, c in group]
            step = sum(f * u for f, u in zip(factors, flat, strict=True)) / weight
            np.testing.assert_allclose(now, was - step, atol=1e-5)


def test_digits_are_learned_though_contributions_are_late():
    split = load("digits", seed=0)
    model = dense_classifier(64, 10)
    round_ = fed_avg(
        local_sgd(model, sgd(0.2), Epochs(batch_size=8)),
        aggregator=mean_over_expected_cohort(4),
    )
    executor = thread_executor(2)
    run = plain_run(
        round_=round_,
        dataset=split.train,
        sampler=full_participation(),
        executor=executor,
        num_rounds=40,
        buffer_goal=4,
        concurrency=10,
    )
    result = train_async(run, round_.init(model.init(SEED)))
    executor.close()
    assert np.mean([r.metrics["staleness_mean"] for r in result.reports]) > 1.0
    scores = Evaluator(model).evaluate(result.state.weights, split.test)
    assert scores["accuracy"] > 0.85


@settings(max_examples=10, deadline=None)
@given(
    num_clients=st.integers(3, 8),
    buffer_goal=st.integers(1, 3),
    concurrency=st.integers(1, 9),
    max_staleness=st.integers(0, 3) | st.none(),
    seed=st.integers(0, 99),
)
def test_asked_and_summed_as_often_as_allowed(
    disordered, num_clients, buffer_goal, concurrency, max_staleness, seed
):
    def nothing(work, message, client, own_seed):
        summed.append(client.client_id)
        return NOTHING, client.state

    summed = []
    executor = disordered(seed, nothing)
    reports = []
    run = plain_run(
        dataset=population([2] * num_clients),
        sampler=uniform_sampler(cohort_size=3),
        executor=executor,
        num_rounds=5,
        buffer_goal=buffer_goal,
        concurrency=concurrency,
        max_staleness=max_staleness,
        max_participations=-(-5 * buffer_goal // num_clients) + 1,
        on_round=[lambda report, state: reports.append(report)],
    )
    used_up = _ends_by_itself(run)
    asked = [executor.asked.count(client) for client in set(executor.asked)]
    assert max(asked) <= run.max_participations
    assert used_up or len(reports) == 5
    assert all(report.cohort_size == buffer_goal for report in reports)
    bound = np.inf if max_staleness is None else max_staleness
    assert all(report.metrics["staleness_max"] <= bound for report in reports)
    for number in range(len(reports)):
        group = summed[number * buffer_goal : (number + 1) * buffer_goal]
        assert len(set(group)) == buffer_goal


def _ends_by_itself(run):
    try:
        train_async(run, first_state())
    except BudgetExhaustedError:
        return True
    return False


def test_whoever_is_too_late_is_given_up_and_named(disordered):
    run = plain_run(executor=disordered(), max_staleness=0, concurrency=4, num_rounds=4)
    reports = train_async(run, first_state()).reports
    assert {report.metrics["staleness_max"] for report in reports} == {0.0}
    assert [len(report.lost_clients) for report in reports] == [0, 3, 3, 2]


def test_a_contribution_that_is_not_finite_is_lost(disordered):
    def compute(work, message, client, seed):
        contribution, state = contribute(work, message, client, seed)
        bad = np.nan if client.client_id == "client-1" else 1.0
        update = nests.scale(contribution.update, bad)
        return contribution._replace(update=update), state

    run = plain_run(executor=disordered(compute=compute), num_rounds=10)
    result = train_async(run, first_state())
    lost = [client for report in result.reports for client in report.lost_clients]
    assert set(lost) == {"client-1"}
    assert all(np.isfinite(leaf).all() for leaf in leaves(result.state))


def test_a_sum_of_which_nothing_is_finite_is_divergence(disordered):
    hot = fed_avg(local_sgd(MODEL, sgd(3e38), Epochs(batch_size=2)))
    run = plain_run(round_=hot, executor=disordered())
    with pytest.raises(DivergedError, match="learning rate"):
        train_async(run, first_state())


def test_a_run_that_was_cut_goes_on_with_counts_and_updates(disordered, tmp_path):
    class PowerCutError(Exception):
        pass

    def cut(report, state):
        if report.round_number == 3:
            raise PowerCutError

    store = CheckpointStore(tmp_path)
    bounded = {"checkpoints": store, "max_participations": 3, "num_rounds": 7}
    first = disordered(seed=1)
    with pytest.raises(PowerCutError):
        train_async(plain_run(executor=first, on_round=[cut], **bounded), first_state())
    saved_asked = first.asked[: -len(first.waiting) - 2]
    second = disordered(seed=2)
    result = train_async(plain_run(executor=second, **bounded), first_state())
    assert [report.round_number for report in result.reports] == [3, 4, 5, 6]
    assert int(result.state.round_number) == 7
    everyone = [*saved_asked, *second.asked]
    assert max(everyone.count(client) for client in set(everyone)) <= 3


def test_when_nobody_is_left_to_ask_the_run_ends(disordered):
    run = plain_run(
        executor=disordered(),
        dataset=population([5, 9, 3, 7, 4, 6]),
        max_participations=2,
        max_staleness=0,
        concurrency=5,
    )
    with pytest.raises(BudgetExhaustedError, match="Nobody is left"):
        train_async(run, first_state())


def test_clients_without_rows_are_not_asked(disordered):
    executor = disordered()
    run = plain_run(executor=executor, dataset=population([5, 0, 3, 7]))
    train_async(run, first_state())
    assert "client-1" not in executor.asked


def test_an_error_of_a_client_ends_the_run():
    class Failing:
        def submit(self, work, message, client, seed):
            future = Future()
            future.set_exception(ZeroDivisionError())
            return future

    with pytest.raises(ZeroDivisionError):
        train_async(plain_run(executor=Failing()), first_state())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buffer_goal": 7}, "only 6 clients"),
        ({"buffer_goal": 0}, "buffer_goal"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_staleness": -1}, "max_staleness"),
        ({"max_participations": 1, "num_rounds": 4}, "need 8 contributions"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plain_run(**changes)


def test_integers_of_secure_aggregation_are_refused():
    def finish(message, carry):
        contribution, state = WORK.finish(message, carry)
        masked = tf.nest.map_structure(
            lambda leaf: tf.cast(leaf, tf.int32), contribution.update
        )
        return contribution._replace(update=masked), state

    round_ = ROUND._replace(client_work=WORK._replace(finish=finish))
    with pytest.raises(ConfigError, match="secure aggregation"):
        train_async(plain_run(round_=round_), first_state())


def test_a_discount_that_lets_contributions_grow_is_refused(disordered):
    run = plain_run(executor=disordered(), staleness_discount=lambda late: 1.5)
    with pytest.raises(ConfigError, match="staleness_discount"):
        train_async(run, first_state())
