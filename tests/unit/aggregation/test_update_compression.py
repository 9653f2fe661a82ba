import math

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.aggregation.rotation import random_rotation
from fedtrain.aggregation.stochastic_quantisation import stochastic_quantisation
from fedtrain.aggregation.top_k import top_k_with_error_feedback
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.rounds.fed_avg import fed_avg

ROTATION = seeds.root(5)
MEAN = mean_over_expected_cohort(1)
NUM_SEEDS = 1000


def contribution_of(*arrays):
    update = [tf.constant(array) for array in arrays]
    return Contribution(update, tf.constant(1.0, tf.float64), {})


def through(stage, contribution, kept=None, seed=ROTATION):
    """What the server decodes from one contribution, and the client's new state."""
    state = stage.init(contribution.update)
    kept = stage.init_client(contribution.update) if kept is None else kept
    sent, kept = stage.encode(stage.share(state), contribution, kept, seed)
    return stage.decode(state, sent, seed)[0].update, kept


@pytest.fixture(scope="module")
def update():
    random = seeds.generator(seeds.root(1))
    return contribution_of(random.normal(size=[4, 3]), random.normal(size=[3]) * 50)


def decoded_many_times(stage, contribution):
    """Float64 [NUM_SEEDS, numbers] from as many client seeds."""
    many = seeds.split(seeds.root(9), NUM_SEEDS)

    def one(seed):
        found, _ = through(stage, contribution, seed=seed)
        return tf.concat([tf.reshape(leaf, [-1]) for leaf in found], axis=0)

    return tf.function(
        lambda: tf.map_fn(one, many, fn_output_signature=tf.float64)
    )().numpy()


@pytest.mark.parametrize(
    ("num_bits", "turns"), [(8, False), (4, True)], ids=["int8", "rotated_int4"]
)
def test_the_mean_over_seeds_is_the_update(update, num_bits, turns):
    stage = stochastic_quantisation(num_bits)
    stage = chain(random_rotation(ROTATION), stage) if turns else stage
    flat = np.concatenate([np.ravel(leaf) for leaf in update.update])
    found = decoded_many_times(stage, update)
    # Of 15 numbers each mean is normal; beyond 6 deviations in under 1e-7 of all seeds.
    # A number on the grid has no deviation but rounding.
    bound = 6.0 * found.std(axis=0) / math.sqrt(NUM_SEEDS) + 1e-9
    assert np.all(np.abs(found.mean(axis=0) - flat) < bound)
    assert found.std(axis=0).max() > 0.0


@pytest.mark.parametrize(("num_bits", "most"), [(8, 127), (4, 7)])
def test_no_number_moves_by_a_step_or_leaves_the_grid(update, num_bits, most):
    stage = stochastic_quantisation(num_bits)
    sent, _ = stage.encode((), update, (), ROTATION)
    step = float(sent.update.step)
    for before, after in zip(update.update, sent.update.values, strict=True):
        assert np.max(np.abs(after - before)) < step
        multiples = np.asarray(after) / step
        np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-9)
        assert np.max(np.abs(multiples)) <= most + 1e-9


def test_a_rotation_before_the_grid_makes_the_error_smaller():
    spike = seeds.generator(seeds.root(2)).normal(size=1024)
    spike[7] = 100.0
    update, grid = contribution_of(spike), stochastic_quantisation(4)
    errors = [
        np.linalg.norm(through(stage, update)[0][0] - spike)
        for stage in (grid, chain(random_rotation(ROTATION), grid))
    ]
    # Without it 1023 numbers of about 1 meet a step of 14; with it all have about 3 and
    # a step below 3: errors of about 108 and 21 over all, each within a few per cent.
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("num_bits", [8, 4])
def test_zero_stays_zero_and_what_is_not_finite_stays_so(num_bits):
    stage = stochastic_quantisation(num_bits)
    zero, _ = through(stage, contribution_of(np.zeros(5, np.float32)))
    assert not np.any(zero[0])
    for bad in (np.nan, np.inf):
        found, _ = through(stage, contribution_of(np.array([1.0, bad, 0.0])))
        assert not np.isfinite(found[0]).any()


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(ConfigError, match="num_bits must be one of '4', '8'; got '2'"):
        stochastic_quantisation(2)


def test_the_largest_are_sent_and_the_rest_is_kept():
    stage = top_k_with_error_feedback(0.4)
    update = contribution_of(np.array([[1.0, -9.0, 3.0], [0.5, 8.0, -2.0]]))
    sent, kept = through(stage, update, stage.init_client(update.update))
    np.testing.assert_array_equal(sent[0], [[0.0, -9.0, 3.0], [0.0, 8.0, 0.0]])
    np.testing.assert_array_equal(kept[0], [[1.0, 0.0, 0.0], [0.5, 0.0, -2.0]])
    again = contribution_of(np.array([[2.5, 0.0, 0.1], [0.0, 0.1, -2.0]]))
    sent, kept = through(stage, again, kept)
    np.testing.assert_array_equal(sent[0], [[3.5, 0.0, 0.0], [0.5, 0.0, -4.0]])
    np.testing.assert_array_equal(kept[0], [[0.0, 0.0, 0.1], [0.0, 0.1, 0.0]])


def test_what_is_sent_and_kept_adds_up_over_rounds():
    stage = top_k_with_error_feedback(0.1)
    random = seeds.generator(seeds.root(4))
    updates = [contribution_of(random.integers(-99, 99, 37) / 4.0) for _ in range(20)]
    kept, total = stage.init_client(updates[0].update), np.zeros(37)
    for update in updates:
        sent, kept = through(stage, update, kept)
        total += sent[0]
        assert np.count_nonzero(sent[0]) <= 4
    # Quarters add up without rounding.
    expected = np.sum([update.update[0] for update in updates], axis=0)
    np.testing.assert_array_equal(total + kept[0], expected)


def test_an_update_that_is_not_finite_is_seen_and_not_kept():
    stage = top_k_with_error_feedback(0.5)
    before = [tf.constant([1.0, 2.0, 3.0, 4.0])]
    update = contribution_of(np.array([0.0, np.inf, 1.0, 2.0], np.float32))
    sent, kept = through(stage, update, before)
    assert np.isnan(sent[0]).sum() == 2
    np.testing.assert_array_equal(kept[0], before[0])


def test_a_stage_after_compression_is_refused():
    with pytest.raises(ConfigError, match="must be the last of a chain"):
        chain(stochastic_quantisation(8), random_rotation(ROTATION))


COMPRESSING = {
    "int8": stochastic_quantisation(8),
    "top_k": top_k_with_error_feedback(0.1),
}


@pytest.mark.parametrize("stage", COMPRESSING.values(), ids=COMPRESSING)
def test_noise_on_a_bounded_sum_beside_compression_is_refused(stage):
    mechanism = gaussian_mechanism(clipping_norm=0.5, noise_multiplier=1.0)
    with pytest.raises(PrivacyError, match=r"at most 0\.5; compressing.*trust = 'loc"):
        chain(MEAN, mechanism, stage)
    with pytest.raises(ConfigError, match="last of a chain"):
        chain(MEAN, stage, mechanism)


@pytest.mark.parametrize("stage", COMPRESSING.values(), ids=COMPRESSING)
def test_noise_that_clients_have_added_may_be_compressed(stage):
    model = dense_classifier(5, 3)
    work = dp_sgd(
        model,
        sgd(0.2),
        clipping_norm=0.5,
        noise_multiplier=1.0,
        sampling_rate=0.3,
        local_steps=2,
        expected_batch_size=3.0,
    )
    round_ = fed_avg(work, aggregator=chain(MEAN, stage))
    assert [one.trust for one in round_.mechanisms] == ["local"]


def test_rounding_does_lengthen_updates():
    """Why the mechanism's bound and the grid are refused together."""
    update = contribution_of(np.full(1000, 0.3) + np.eye(1000)[0] * 6.7)
    found, _ = through(stochastic_quantisation(4), update)
    before = np.linalg.norm(update.update[0])
    # Its square is 349 with a deviation of 14.5, 1.4 times is 272: false for 1e-7.
    assert np.linalg.norm(found[0]) > 1.4 * before
    assert nests.num_weights(found) == 1000
