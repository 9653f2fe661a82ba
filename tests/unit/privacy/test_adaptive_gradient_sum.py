import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.fixed_point import FixedPoint, from_ring
from fedtrain.client_work.per_example import per_example_gradients
from fedtrain.core import nests, seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import Batch
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.adaptive_gradient_sum import quantile_query
from fedtrain.privacy.clipping import bounded_norm
from fedtrain.privacy.fixed_point_sum import ring_vector
from fedtrain.privacy.ghost_clipping import clipped_sum, clipped_sum_and_count
from fedtrain.privacy.gradient_sum import joint_norm
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.rounds.dp_fed_sgd import integer_fed_sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import EagerRuntime, contribute

SEED = seeds.root(6)
MODEL = dense_classifier(3, 2)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
QUERY = quantile_query(
    initial_clipping_norm=0.3,
    noise_multiplier=0.01,
    expected_count=200.0,
    unclipped_quantile=0.5,
)
JOINT = joint_norm(0.3, QUERY, 0.0)
MECHANISM = IntegerGaussian(
    unit="example",
    trust="central",
    clipping_norm=JOINT,
    noise_multiplier=0.01,
    grid=FixedPoint(num_weights=9, bounded="unit", largest=2**28),
    num_rounds=100,
    num_clients=1,
)
ROUND = integer_fed_sgd(MODEL, sgd(1e-9), MECHANISM, expected_count=200.0, query=QUERY)


def rows(num):
    random = seeds.generator(SEED)
    features = random.normal(size=[num, 3]).astype(np.float32)
    return Examples(features=features, labels=np.arange(num, dtype=np.int32) % 2)


def client(num):
    state = ROUND.client_work.init_state(WEIGHTS)
    return CohortClient("ada", rows(num), state)


def norms(num):
    examples = rows(num)
    batch = Batch(
        tf.constant(examples.features),
        tf.constant(examples.labels),
        tf.ones([num]),
        tf.ones([num]),
    )
    gradients, _ = per_example_gradients(MODEL, WEIGHTS, batch, SEED)
    leaves = [np.reshape(leaf, [num, -1]) for leaf in tf.nest.flatten(gradients)]
    return batch, np.linalg.norm(np.concatenate(leaves, axis=1), axis=1)


@pytest.mark.parametrize("rows_per_unit", [1, 3])
def test_the_count_is_of_units_within_the_norm(rows_per_unit):
    batch, lengths = norms(8)
    mask = np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)
    masked = batch._replace(mask=tf.constant(mask), weights=tf.constant(mask))
    bound = float(np.median(lengths[:5]))
    total, _, count = clipped_sum_and_count(
        MODEL, WEIGHTS, masked, SEED, clipping_norm=bound, rows_per_unit=rows_per_unit
    )
    same, _ = clipped_sum(
        MODEL, WEIGHTS, masked, SEED, clipping_norm=bound, rows_per_unit=rows_per_unit
    )
    for one, other in zip(tf.nest.flatten(total), tf.nest.flatten(same), strict=True):
        np.testing.assert_array_equal(one, other)
    if rows_per_unit == 1:
        below = int(np.sum(lengths[:5] < bound * (1 - 1e-6)))
        assert abs(float(count) - (below + 0.5 - 2.5)) == 0.5  # the median's own row
    else:
        assert abs(float(count)) in (0.0, 1.0)  # two units, the third is all padding


def test_a_row_moves_sum_and_count_together_by_the_stated_bound():
    message = ROUND.broadcast(ROUND.init(WEIGHTS))
    few, many = (
        from_ring(ring_vector(contribute(ROUND.client_work, message, one, SEED)[0]))
        for one in (client(40), client(41))
    )
    moved = many.astype(np.int64) - few
    unit = QUERY.initial_clipping_norm / MECHANISM.grid.grid(JOINT)
    assert abs(moved[-1]) == pytest.approx(0.5 * QUERY.scale * unit, abs=1.0)
    assert 0 < int(np.sum(moved**2)) <= MECHANISM.grid.sensitivity_squared


@pytest.mark.parametrize("norm", [0.0, -1.0, 1e-38, 1e-20, 1e38, np.inf, np.nan])
def test_no_norm_that_is_broadcast_lets_a_row_move_more(norm):
    honest = ROUND.broadcast(ROUND.init(WEIGHTS))
    shared = list(honest.shared)
    shared[1] = tf.constant(norm, tf.float32)
    message = honest._replace(shared=type(honest.shared)(shared))
    few, many = (
        from_ring(ring_vector(contribute(ROUND.client_work, message, one, SEED)[0]))
        for one in (client(40), client(41))
    )
    moved = many.astype(np.int64) - few
    assert 0 < int(np.sum(moved**2)) <= MECHANISM.grid.sensitivity_squared
    assert np.max(np.abs(many)) < MECHANISM.grid.largest


def test_a_norm_is_taken_within_reach_of_the_first_one():
    for norm, taken in [(0.5, 0.5), (0.0, 2.0**-40), (1e30, 2.0**40), (np.nan, 1.0)]:
        assert float(bounded_norm(tf.constant(norm), 1.0)) == taken


def test_the_norm_follows_the_quantile_and_updates_keep_their_scale():
    state = ROUND.init(WEIGHTS)
    runtime = EagerRuntime()
    for number in range(30):
        seed = seeds.derive(SEED, "round", number)
        state = runtime.run_round(ROUND, state, [client(200)], seed).state
    _, lengths = norms(200)
    reached = float(state.aggregator[1])
    share = float(np.mean(lengths <= reached))
    assert share == pytest.approx(0.5, abs=0.15)


def test_too_few_units_for_a_quantile_are_refused():
    with pytest.raises(PrivacyError, match="at least 100"):
        quantile_query(
            initial_clipping_norm=1.0,
            noise_multiplier=1.0,
            expected_count=99.0,
            unclipped_quantile=0.5,
        )
