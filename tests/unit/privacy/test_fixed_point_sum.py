from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, chain, nothing, unchanged
from fedtrain.aggregation.fixed_point import FixedPoint, from_ring
from fedtrain.aggregation.mean import mean_over_expected_cohort, weighted_mean
from fedtrain.aggregation.rotation import random_rotation
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.client_work import ClientWork, Contribution, stateless
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.model import ModelWeights
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.fixed_point_sum import (
    fixed_point_sum,
    from_ring_vector,
    ring_vector,
)
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.noise_source import NOISE_OF_PARTNERS, ReleasedNoise
from fedtrain.rounds.released import released
from fedtrain.rounds.round import averaging_round
from fedtrain.rounds.runtime import CohortClient, client_seed
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime, contribute

SEED = seeds.root(3)
CLIENTS = ("ada", "bob", "cid", "dan")
WEIGHTS = ModelWeights({"w": tf.zeros([3, 2]), "b": tf.zeros([2])})
SHARES = IntegerGaussian(
    unit="client",
    trust="distributed",
    clipping_norm=2.0,
    noise_multiplier=0.25,
    grid=FixedPoint(num_weights=8),
    num_rounds=10,
    num_clients=4,
    num_honest=2,
)
CENTRAL = replace(SHARES, trust="central", num_honest=1)


def exact_work():
    """Sums rows that are multiples of 1/8: equal to the bit, however it is compiled."""

    def step(carry, batch):
        rows = tf.reshape(batch.mask, [-1, 1]) * batch.features
        total = tf.reduce_sum(rows, axis=0)
        return nests.add(carry, {"w": tf.reshape(total[:6], [3, 2]), "b": total[6:]})

    def finish(message, carry):
        update = message.weights._replace(trainable=carry)
        return Contribution(update, tf.constant(0.0), {}), ()

    return ClientWork(
        batching=Epochs(batch_size=4, local_epochs=1),
        init_state=stateless,
        start=lambda message, client: nests.zeros_like(message.weights.trainable),
        step=step,
        finish=finish,
    )


def a_round(mechanism, *before):
    return averaging_round(
        exact_work(),
        aggregator=chain(
            mean_over_expected_cohort(4.0), *before, fixed_point_sum(mechanism)
        ),
        server_optimizer=sgd(1.0),
        name="exact",
    )


ROUND = a_round(SHARES)


def cohort(round_=None):
    rows = seeds.generator(SEED).integers(-4, 5, [4, 10, 8]) / 8.0
    return [
        CohortClient(
            name,
            Examples(
                features=rows[i].astype(np.float32) / 4, labels=np.zeros(10, np.int32)
            ),
            (round_ or ROUND).client_work.init_state(WEIGHTS),
        )
        for i, name in enumerate(CLIENTS)
    ]


def contributions(round_):
    message = round_.broadcast(round_.init(WEIGHTS))
    return [
        contribute(round_.client_work, message, one, client_seed(SEED, one.client_id))[
            0
        ]
        for one in cohort()
    ]


def flat(nest):
    return np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(nest)])


def exact_sum():
    plain = averaging_round(
        exact_work(),
        aggregator=mean_over_expected_cohort(1.0),
        server_optimizer=sgd(1.0),
        name="plain",
    )
    return sum(flat(one.update) for one in contributions(plain))


def test_the_compiled_sum_is_the_sum_of_what_clients_send_to_the_bit():
    parts = [flat(one.update) for one in contributions(ROUND)]
    assert all(part.dtype == np.uint32 for part in parts)
    expected = reduce(np.add, reversed(parts))
    runtime = CompiledRuntime(strategy="graph", num_workers=2, chunk_size=2)
    message = runtime.broadcast(ROUND, ROUND.init(WEIGHTS))
    total = runtime.cohort_sum(ROUND, message, cohort(), SEED).total
    np.testing.assert_array_equal(flat(total.update), expected)
    # Four shares of noise, each with half the needed variance.
    noise = from_ring(expected) * SHARES.grid.grid(2.0) - exact_sum()
    assert 0.0 < np.max(np.abs(noise)) < 6.0 * 2.0**0.5 * 0.25 * 2.0


@pytest.mark.parametrize("mechanism", [SHARES, CENTRAL], ids=lambda one: one.trust)
def test_a_compiled_round_is_the_eager_one_to_the_bit(mechanism):
    round_ = a_round(mechanism)
    eager, compiled = (
        runtime.run_round(round_, round_.init(WEIGHTS), cohort(), SEED).state
        for runtime in (EagerRuntime(), CompiledRuntime(strategy="graph"))
    )
    np.testing.assert_array_equal(flat(compiled.weights), flat(eager.weights))
    # Server minus mean: within the noise of the exact mean.
    error = flat(eager.weights) + exact_sum() / 4.0
    assert 0.0 < np.max(np.abs(error)) < 6.0 * 2.0**0.5 * 0.25 * 2.0 / 4.0


def test_central_contributions_bear_no_noise():
    parts = [from_ring(flat(one.update)) for one in contributions(a_round(CENTRAL))]
    grid = CENTRAL.grid.grid(2.0)
    np.testing.assert_allclose(sum(parts) * grid, exact_sum(), atol=4.0 * grid)


def test_a_rotation_before_it_is_turned_back():
    quiet = replace(CENTRAL, noise_multiplier=1e-3)
    round_ = a_round(quiet, random_rotation(seeds.root(8)))
    start, clients = round_.init(WEIGHTS), cohort(round_)
    state = EagerRuntime().run_round(round_, start, clients, SEED).state
    np.testing.assert_allclose(flat(state.weights), -exact_sum() / 4.0, atol=0.01)


def test_released_noise_depends_on_the_key_and_the_promise_does_not():
    one, same, other = (
        flat(contributions(released(ROUND, ReleasedNoise(key)))[0].update)
        for key in (bytes(32), bytes(32), bytes(31) + b"1")
    )
    np.testing.assert_array_equal(one, same)
    assert np.all(one != other)
    own = released(ROUND, NOISE_OF_PARTNERS)
    assert own.mechanisms[0].is_released
    assert own.mechanisms[0].dp_event == ROUND.mechanisms[0].dp_event
    assert not ROUND.mechanisms[0].is_released


def test_the_server_never_meets_two_sums_with_the_same_noise():
    stage = fixed_point_sum(CENTRAL, noise=ReleasedNoise(bytes(32)))
    total = np.zeros(8, np.uint32)
    noised = [
        flat(stage.decode((), Contribution(one, 0.0, {}), SEED)[0].update)
        for one in (total, total, total + np.uint32(1))
    ]
    np.testing.assert_array_equal(noised[0], noised[1])
    moved = noised[2] - noised[0]
    assert np.ptp(moved) > CENTRAL.grid.grid(2.0)


def test_who_only_describes_noise_gives_away_nothing():
    described = released(ROUND, NOISE_OF_PARTNERS)
    assert not any(flat(one.update).any() for one in contributions(described))
    stage = fixed_point_sum(CENTRAL, noise=NOISE_OF_PARTNERS)
    total = Contribution(np.zeros(8, np.uint32), 0.0, {})
    with pytest.raises((ConfigError, tf.errors.OpError), match="noise key"):
        stage.decode((), total, SEED)


def test_a_contribution_crosses_as_one_vector():
    (one, *_) = contributions(ROUND)
    vector = ring_vector(one)
    back = from_ring_vector(vector, like=one)
    np.testing.assert_array_equal(flat(back.update), flat(one.update))
    assert vector.dtype == np.uint32


@pytest.mark.parametrize("place", [0, 1])
def test_it_must_be_the_last_stage(place):
    stages = [mean_over_expected_cohort(4.0), random_rotation(SEED)]
    stages.insert(place, fixed_point_sum(SHARES))
    with pytest.raises(PrivacyError, match="must be the last"):
        chain(*stages)


def test_order_statistics_and_exact_weights_are_refused():
    median = Aggregator(
        nothing, nothing, nothing, unchanged, unchanged, needs="contributions"
    )
    with pytest.raises(PrivacyError, match="Krum"):
        chain(median, fixed_point_sum(SHARES))
    with pytest.raises(PrivacyError, match="weight"):
        chain(weighted_mean(), fixed_point_sum(SHARES))


def test_exact_metrics_do_not_leave_beside_it():
    with pytest.raises(PrivacyError, match="reports_metrics"):
        averaging_round(
            exact_work()._replace(reports_metrics=True),
            aggregator=fixed_point_sum(SHARES),
            server_optimizer=sgd(1.0),
            name="loud",
        )


def test_other_types_of_weights_are_refused():
    with pytest.raises(ConfigError, match="float64"):
        ROUND.init(ModelWeights({"w": tf.zeros([8], tf.float64)}))
