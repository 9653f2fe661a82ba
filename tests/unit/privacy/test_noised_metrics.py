import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.fixed_point import FixedPoint, from_ring
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import Batch, mean_loss
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.adaptive_gradient_sum import quantile_query
from fedtrain.privacy.fixed_point_sum import ring_vector
from fedtrain.privacy.gradient_sum import joint_norm
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.noised_metrics import batch_metrics, metrics_query, noised_metrics
from fedtrain.rounds.dp_fed_sgd import integer_fed_sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime, contribute, gather_batch

SEED = seeds.root(6)
MODEL = dense_classifier(3, 2)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
METRICS = metrics_query(MODEL, clipping_norm=0.3, share=0.2, expected_count=200.0)
QUERY = quantile_query(
    initial_clipping_norm=0.3,
    noise_multiplier=0.01,
    expected_count=200.0,
    unclipped_quantile=0.5,
)


def a_round(query):
    mechanism = IntegerGaussian(
        unit="example",
        trust="central",
        clipping_norm=joint_norm(0.3, query, 0.2),
        noise_multiplier=0.01,
        grid=FixedPoint(
            num_weights=10 + (query is not None), bounded="unit", largest=2**28
        ),
        num_rounds=100,
        num_clients=1,
    )
    round_ = integer_fed_sgd(
        MODEL, sgd(0.5), mechanism, expected_count=200.0, query=query, metrics=METRICS
    )
    return round_, mechanism


def client(round_, num):
    random = seeds.generator(SEED)
    features = random.normal(size=[num, 3]).astype(np.float32)
    rows = Examples(features=features, labels=np.arange(num, dtype=np.int32) % 2)
    return CohortClient("ada", rows, round_.client_work.init_state(WEIGHTS))


@pytest.mark.parametrize("query", [None, QUERY], ids=["fixed", "adaptive"])
@pytest.mark.parametrize(
    "runtime",
    [EagerRuntime(), CompiledRuntime(strategy="graph")],
    ids=["eager", "graph"],
)
def test_the_sum_reports_loss_and_accuracy_of_its_rows(query, runtime):
    round_, _ = a_round(query)
    one = client(round_, 200)
    state = runtime.run_round(round_, round_.init(WEIGHTS), [one], SEED).state
    reported = round_.reported(state)
    batch = gather_batch(one.examples, np.arange(200))
    outputs = MODEL.forward(WEIGHTS, batch.features, training=False, seed=SEED).outputs
    right = float(np.mean(np.argmax(outputs, axis=1) == batch.labels))
    assert set(reported) == {"noised_loss", "noised_accuracy"}
    # Noise of 0.01 norms on 200 rows whose share is 0.2 / sqrt(2): 0.0004, ten times.
    assert reported["noised_accuracy"] == pytest.approx(right, abs=0.004)
    loss = float(mean_loss(MODEL, batch, outputs))
    assert reported["noised_loss"] == pytest.approx(loss, abs=0.02)


def test_a_row_moves_everything_together_by_the_stated_bound():
    round_, mechanism = a_round(QUERY)
    message = round_.broadcast(round_.init(WEIGHTS))
    few, many = (
        from_ring(
            ring_vector(
                contribute(round_.client_work, message, client(round_, num), SEED)[0]
            )
        )
        for num in (40, 41)
    )
    moved = many.astype(np.int64) - few
    assert np.any(moved[-2:])
    assert 0 < int(np.sum(moved**2)) <= mechanism.grid.sensitivity_squared


@pytest.mark.parametrize("rows_per_unit", [1, 3])
def test_a_unit_among_many_moves_the_sums_by_its_own_numbers(rows_per_unit):
    num = 2**17
    random = seeds.generator(SEED)
    features = tf.constant(random.normal(size=[num, 3]), tf.float32)
    labels = tf.constant(np.arange(num) % 2, tf.int32)
    outputs = MODEL.forward(WEIGHTS, features, training=False, seed=SEED).outputs
    ones = tf.ones([num])

    def sums(mask):
        batch = Batch(features, labels, ones, tf.constant(mask, tf.float32))
        extras = (batch_metrics(METRICS, MODEL, batch, outputs, rows_per_unit),)
        update = WEIGHTS._replace(trainable=(), state=())
        given = Contribution(update, tf.constant(0.0), {}, extras)
        encoded, _ = noised_metrics(METRICS).encode((), given, (), SEED)
        return encoded.extras[0].numpy() / METRICS.scale

    of_unit = np.arange(num) // rows_per_unit == 7
    alone = sums(of_unit)
    moved = sums(np.ones(num)) - sums(~of_unit)
    assert np.all((alone >= 0) & (alone <= 1))
    assert alone[0] > 0
    np.testing.assert_allclose(moved, alone, rtol=0, atol=1e-9)


def test_an_entity_counts_by_the_mean_of_its_rows_however_few_they_are():
    features = tf.constant([[1, 0, 0]] * 4 + [[0, 1, 0]] * 4, tf.float32)
    weights = MODEL.init(SEED)
    outputs = MODEL.forward(weights, features, training=False, seed=SEED).outputs
    right = np.argmax(outputs, axis=1)
    labels = tf.constant(np.where(np.arange(8) == 1, 1 - right, right), tf.int32)
    # Of the four places of each entity one has two rows and the other has one.
    mask = tf.constant([1, 1, 0, 0, 1, 0, 0, 0], tf.float32)
    batch = Batch(features, labels, tf.ones([8]), mask)
    _, accuracy = batch_metrics(METRICS, MODEL, batch, outputs, 4).numpy()
    assert accuracy == 0.5 + 1.0


def test_rows_that_are_not_finite_count_as_zero():
    round_, _ = a_round(None)
    one = client(round_, 200)
    features = one.examples.features.copy()
    features[::2] = np.nan
    broken = one._replace(
        examples=Examples(features=features, labels=one.examples.labels)
    )
    state = EagerRuntime().run_round(round_, round_.init(WEIGHTS), [broken], SEED).state
    numbers = [*round_.reported(state).values(), *tf.nest.flatten(state.weights)]
    assert all(np.all(np.isfinite(one)) for one in numbers)
