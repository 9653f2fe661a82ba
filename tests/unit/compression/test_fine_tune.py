"""Rounds under a constraint, in plain Python and compiled, with and without noise."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain as stages
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import chain, one_shot
from fedtrain.compression.fine_tune import fine_tuned
from fedtrain.compression.prune import polynomial_sparsity, pruned, pruned_2_of_4
from fedtrain.compression.quantize import quantized
from fedtrain.compression.size import num_distinct, sparsity
from fedtrain.core import nests, seeds
from fedtrain.data.examples import Examples
from fedtrain.data.sets import digits
from fedtrain.models.dense import dense_classifier
from fedtrain.models.keras import keras_model
from fedtrain.optimizers.adaptive import adam
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.rounds.dp_fed_sgd import dp_fed_sgd
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime

SEED = seeds.root(1)
MODEL = dense_classifier(8, 3, hidden=[12], dtype=tf.float64)
EPOCHS = Epochs(batch_size=4, local_epochs=1)


def plain(model):
    return fed_avg(local_sgd(model, sgd(0.1), EPOCHS))


def client_private(model):
    mechanism = gaussian_mechanism(clipping_norm=0.5, noise_multiplier=0.4)
    mean = stages(mean_over_expected_cohort(3), mechanism)
    work = local_sgd(model, adam(0.05), EPOCHS, reports_metrics=False)
    return fed_avg(work, aggregator=mean, server_optimizer=sgd(0.5, momentum=0.9))


def row_private(model):
    work = dp_sgd(
        model,
        sgd(0.2),
        clipping_norm=0.5,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        local_steps=2,
        expected_batch_size=3.0,
    )
    return fed_avg(work, aggregator=mean_over_expected_cohort(3))


def central_row_private(model):
    return dp_fed_sgd(
        model,
        sgd(0.5),
        clipping_norm=0.5,
        noise_multiplier=0.5,
        sampling_rate=0.5,
        expected_count=8.0,
    )


ROUNDS = {
    "plain": plain,
    "client_private": client_private,
    "row_private": row_private,
    "central_row_private": central_row_private,
}
CONSTRAINTS = {
    "pruned": pruned(0.7),
    "global": pruned(polynomial_sparsity(0.7, end_round=2), scope="global"),
    "2 of 4": pruned_2_of_4(),
    "clustered": clustered(5),
    "quantized": quantized(num_bits=5),
    "all": chain(pruned(0.7), clustered(5), quantized()),
}


def cohort():
    random = seeds.generator(seeds.root(2))
    return [
        CohortClient(
            f"client-{i}",
            Examples(
                features=random.normal(size=[rows, 8]),
                labels=random.integers(0, 3, rows),
            ),
            (),
        )
        for i, rows in enumerate([9, 0, 5, 6])
    ]


def after_rounds(runtime, round_, num_rounds=3):
    state = round_.init(MODEL.init(seeds.root(3)))
    fresh = round_.client_work.init_state(state.weights)
    clients = [client._replace(state=fresh) for client in cohort()]
    for number in range(num_rounds):
        seed = seeds.derive(SEED, number)
        state = runtime.run_round(round_, state, clients, seed).state
    return state


@functools.cache
def tuned(round_name, constraint_name):
    return fine_tuned(ROUNDS[round_name], MODEL, CONSTRAINTS[constraint_name])


@functools.cache
def by_plain_python(round_name, constraint_name):
    return after_rounds(EagerRuntime(), tuned(round_name, constraint_name))


CASES = [
    *(("plain", name) for name in CONSTRAINTS),
    ("client_private", "all"),
    # The gradients of single rows are traced anew in every round: half a minute.
    pytest.param(("row_private", "all"), marks=pytest.mark.slow),
    pytest.param(("central_row_private", "all"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_server_keeps_to_the_constraint_and_learns(case):
    state = by_plain_python(*case)
    initial = MODEL.init(seeds.root(3))
    kernel, before = (w.trainable[0]["kernel"] for w in (state.weights, initial))
    constraint = CONSTRAINTS[case[1]]
    number = state.round_number - 1
    fixed = constraint.derive(state.weights.trainable, number)
    kept = constraint.keep(fixed, state.weights.trainable)
    np.testing.assert_allclose(kept[0]["kernel"], kernel, rtol=1e-6)
    first = one_shot(initial, constraint).trainable[0]["kernel"]
    assert np.abs(kernel - before).max() > 1e-3
    assert np.abs(kernel - first).max() > 1e-3
    if case[1] in ("pruned", "all"):
        assert sparsity(kernel) == pytest.approx(0.7, abs=0.01)
    if case[1] in ("clustered", "all"):
        assert num_distinct(kernel) <= 5


@pytest.mark.parametrize(
    ("strategy", "case"),
    [
        *(("graph", ("plain", name)) for name in ("global", "quantized")),
        *(("graph", (name, "all")) for name in ("plain", "client_private")),
        pytest.param("stacked", ("plain", "all"), marks=pytest.mark.slow),
        pytest.param("graph", ("row_private", "all"), marks=pytest.mark.slow),
        pytest.param("graph", ("central_row_private", "all"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_compiled_rounds_equal_plain_python(strategy, case):
    runtime = CompiledRuntime(strategy=strategy, num_workers=1, chunk_size=2)
    actual = after_rounds(runtime, tuned(*case))
    expected = by_plain_python(*case)
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_clients_compute_with_constrained_weights_and_send_constrained_updates():
    round_ = tuned("plain", "all")
    state = round_.init(MODEL.init(seeds.root(3)))
    message = round_.broadcast(state)
    fresh = round_.client_work.init_state(state.weights)
    clients = [client._replace(state=fresh) for client in cohort()]
    total = EagerRuntime().run_round(round_, state, clients, SEED).state
    kernel = message.weights.trainable[1]["kernel"]
    update = total.weights.trainable[1]["kernel"] - kernel
    assert not np.any(update[kernel == 0])
    for value in np.unique(kernel):
        moved = update.numpy()[kernel.numpy() == value]
        np.testing.assert_allclose(moved, moved[0], rtol=1e-9)


def test_a_keras_model_keeps_its_zeros_and_its_values():
    layers = [
        keras.layers.Input([8]),
        keras.layers.Reshape([4, 2]),
        keras.layers.Conv1D(6, 2),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_model(keras.Sequential(layers), loss=loss)
    round_ = fine_tuned(plain, model, CONSTRAINTS["all"])
    state = round_.init(model.init(seeds.root(3)))
    fresh = round_.client_work.init_state(state.weights)
    clients = [client._replace(state=fresh) for client in cohort()]
    runtime = CompiledRuntime(strategy="graph", num_workers=1)
    after = runtime.run_round(round_, state, clients, SEED).state.weights
    for leaf in after.trainable:
        if len(leaf.shape) > 1:
            assert sparsity(leaf) == pytest.approx(0.7, abs=0.05)
            assert num_distinct(leaf) <= 5
    assert not np.array_equal(after.state[0], state.weights.state[0])


def test_only_the_servers_weights_decide_what_is_sent():
    round_ = tuned("client_private", "all")
    state = round_.init(MODEL.init(seeds.root(3)))
    messages = [round_.broadcast(state) for _ in range(2)]
    for a, b in zip(*map(tf.nest.flatten, messages), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ROUNDS)
def test_promises_are_those_of_the_plain_round(name):
    round_, before = tuned(name, "all"), ROUNDS[name](MODEL)
    assert round_.mechanisms == before.mechanisms
    assert round_.reports_metrics == before.reports_metrics
    weights = MODEL.init(seeds.root(3))
    tf.nest.assert_same_structure(round_.init(weights), before.init(weights))


def test_fine_tuning_wins_back_what_compression_costs():
    split = digits.load(seed=SEED, num_clients=4, concentration=100.0)
    model = dense_classifier(64, 10, hidden=[32])
    train = split.train
    clients = [
        CohortClient(train.client_id(i), train.client(i), ((), ()))
        for i in range(train.num_clients)
    ]
    evaluator, runtime = Evaluator(model), CompiledRuntime(strategy="graph")

    def rounds(round_, weights, numbers):
        state = round_.init(weights)
        for number in numbers:
            seed = seeds.derive(SEED, number)
            state = runtime.run_round(round_, state, clients, seed).state
        return state.weights

    def round_of(model):
        return fed_avg(
            local_sgd(model, sgd(0.2), Epochs(batch_size=16, local_epochs=2))
        )

    def accuracy(weights):
        return evaluator.evaluate(weights, split.test)["accuracy"]

    constraint = chain(pruned(0.8), clustered(16), quantized())
    weights = rounds(round_of(model), model.init(SEED), range(15))
    compressed = one_shot(weights, constraint)
    tuned_ = rounds(fine_tuned(round_of, model, constraint), weights, range(15, 25))
    tuned_ = one_shot(tuned_, constraint)
    assert accuracy(weights) > 0.93
    assert accuracy(compressed) < accuracy(weights) - 0.1
    assert accuracy(tuned_) > accuracy(weights) - 0.04
    assert sparsity(tuned_.trainable[0]["kernel"]) == pytest.approx(0.8, abs=0.005)
    assert nests.num_weights(tuned_) == nests.num_weights(weights)
