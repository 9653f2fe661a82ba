"""The noise that mechanisms add is the noise that their events declare.

Variances of ``N`` normal numbers have relative sd sqrt(2 / N); limits are 5 sd, so each
check raises a false alarm with probability below 1e-6. All draws are seeded.
"""

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, ClientInput, Contribution
from fedtrain.core import seeds
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import Batch, ModelWeights
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.adaptive_clipping import adaptive_gaussian_mechanism
from fedtrain.privacy.correlated_noise import banded_mechanism, tree_mechanism
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.participation import Participation

SIZE = 20_000
FIVE_SD = 5.0 * (2.0 / SIZE) ** 0.5
SEED = seeds.root(11)


def no_updates(extras=()):
    update = {"w": tf.zeros([SIZE // 2]), "b": tf.zeros([SIZE // 2])}
    return Contribution(update, tf.constant(0.0), {}, extras)


def flat(nest):
    return np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(nest)])


def noise_of(stage, num_rounds=1, extras=()):
    """Noise of each round on a sum of zeros, [rounds, SIZE]."""
    state = stage.init(no_updates().update)
    rounds = []
    for number in range(num_rounds):
        total, state = stage.decode(
            state, no_updates(extras), seeds.derive(SEED, "round", number)
        )
        rounds.append(flat(total.update))
    return np.stack(rounds)


def test_gaussian_mechanism_adds_what_it_declares():
    stage = gaussian_mechanism(clipping_norm=0.5, noise_multiplier=1.2)
    (mechanism,) = stage.mechanisms
    noise = noise_of(stage)[0]
    assert mechanism.noise_stddev_on_sum == pytest.approx(0.6)
    assert mechanism.dp_event.noise_multiplier == 1.2
    assert np.var(noise) == pytest.approx(0.36, rel=FIVE_SD)
    assert abs(np.mean(noise)) < 5.0 * 0.6 / SIZE**0.5


def test_leaves_and_rounds_have_independent_noise():
    noise = noise_of(gaussian_mechanism(clipping_norm=1.0, noise_multiplier=1.0), 2)
    halves = noise[0, : SIZE // 2], noise[0, SIZE // 2 :]
    assert abs(np.corrcoef(*halves)[0, 1]) < 5.0 / (SIZE / 2) ** 0.5
    assert abs(np.corrcoef(*noise)[0, 1]) < 5.0 / SIZE**0.5


def test_empty_poisson_batches_still_release_noise():
    # 2 rows x 5000 weights; each of 4 steps adds noise / expected_batch_size.
    model = dense_classifier(1999, 10)
    work = dp_sgd(
        model,
        sgd(1.0),
        clipping_norm=2.0,
        noise_multiplier=1.5,
        sampling_rate=0.1,
        local_steps=4,
        expected_batch_size=10.0,
    )
    weights = ModelWeights(
        tf.nest.map_structure(tf.zeros_like, model.init(SEED).trainable)
    )
    message = Broadcast(tf.constant(0), weights)
    given = ClientInput((), tf.constant(SEED), tf.constant(0))
    carry = work.start(message, given)
    empty = Batch(
        features=tf.zeros([2, 1999]),
        labels=tf.zeros([2], tf.int32),
        weights=tf.zeros([2]),
        mask=tf.zeros([2]),
    )
    for _ in range(4):
        carry = work.step(carry, empty)
    contribution, _ = work.finish(message, carry)
    variance = np.var(flat(contribution.update.trainable))
    assert variance == pytest.approx(4 * (2.0 * 1.5 / 10.0) ** 2, rel=FIVE_SD)
    assert float(contribution.weight) == 1.0


def test_adaptive_clipping_pays_for_its_quantile():
    stage = adaptive_gaussian_mechanism(
        initial_clipping_norm=0.5, noise_multiplier=2.0, expected_cohort_size=200.0
    )
    (mechanism,) = stage.mechanisms
    details = dict(mechanism.details)
    of_count = 2.0 * details["noise_stddev_of_unclipped_count"]
    of_sum = details["noise_multiplier_of_sum"]
    assert of_sum > 2.0
    assert of_sum**-2 + of_count**-2 == pytest.approx(mechanism.noise_multiplier**-2)
    noise = noise_of(stage, extras=(tf.constant(0.0),))[0]
    # Said of the first round, at the initial norm: what is on the sum, not the joint.
    assert mechanism.noise_stddev_on_sum == pytest.approx(of_sum * 0.5)
    assert mechanism.noise_stddev_on_sum > 2.0 * 0.5
    assert np.var(noise) == pytest.approx(mechanism.noise_stddev_on_sum**2, rel=FIVE_SD)


def test_tree_noise_of_a_prefix_is_that_of_its_nodes():
    pattern = Participation(num_rounds=7, max_participations=1)
    stage = tree_mechanism(
        clipping_norm=1.0, noise_multiplier=0.5, participation=pattern
    )
    (mechanism,) = stage.mechanisms
    prefixes = np.cumsum(noise_of(stage, 7), axis=0)
    for number, prefix in enumerate(prefixes):
        nodes = (number + 1).bit_count()
        expected = nodes * mechanism.noise_stddev_on_sum**2
        assert np.var(prefix) == pytest.approx(expected, rel=FIVE_SD)


def test_a_tree_past_its_rounds_gives_nothing_rather_than_an_exact_sum():
    stage = tree_mechanism(
        clipping_norm=1.0,
        noise_multiplier=0.5,
        participation=Participation(num_rounds=3, max_participations=1),
    )
    noises = noise_of(stage, 4)
    assert np.all(np.isfinite(noises[:3]))
    assert np.all(np.isnan(noises[3]))


@pytest.mark.parametrize("build", [tree_mechanism, banded_mechanism])
def test_correlated_noise_is_the_same_in_a_compiled_round(build):
    stage = build(
        clipping_norm=1.0,
        noise_multiplier=0.5,
        participation=Participation(num_rounds=5, min_separation=2),
    )
    compiled = stage._replace(decode=tf.function(stage.decode))
    np.testing.assert_allclose(
        noise_of(compiled, 5), noise_of(stage, 5), rtol=1e-4, atol=1e-5
    )


def test_banded_noise_is_the_inverse_of_the_encoder():
    stage = banded_mechanism(
        clipping_norm=1.0,
        noise_multiplier=0.5,
        participation=Participation(num_rounds=6, min_separation=3),
    )
    (mechanism,) = stage.mechanisms
    encoder = np.zeros([6, 6])
    for offset, coefficient in enumerate([1.0, 0.5, 0.375]):
        encoder += coefficient * np.eye(6, k=-offset)
    inverse = np.linalg.inv(encoder)
    expected = inverse @ inverse.T * mechanism.noise_stddev_on_sum**2
    # Covariances of SIZE products: relative sd at most sqrt(2 / SIZE) of the variances.
    np.testing.assert_allclose(
        np.cov(noise_of(stage, 6)), expected, atol=FIVE_SD * np.max(expected)
    )


def test_one_band_is_the_gaussian_mechanism():
    every_round = Participation(num_rounds=4)
    banded = banded_mechanism(
        clipping_norm=1.0, noise_multiplier=0.5, participation=every_round
    )
    (mechanism,) = banded.mechanisms
    independent = gaussian_mechanism(clipping_norm=1.0, noise_multiplier=1.0)
    assert mechanism.noise_stddev_on_sum == 1.0
    assert mechanism.dp_event == independent.mechanisms[0].dp_event
    np.testing.assert_allclose(noise_of(banded, 4), noise_of(independent, 4))
