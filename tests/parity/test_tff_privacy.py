"""Clipping and noise against TensorFlow Privacy's queries, the second opinion.

Noise is compared by its variance over ``NUM_VALUES`` numbers. Both bounds are five
standard deviations wide, so each false alarm has probability 6e-7; our own numbers are
seeded and cannot give one twice.
"""

import math

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.privacy.clipping import clip_to_norm, sum_of_clipped
from fedtrain.privacy.gaussian import gaussian_mechanism

dp_query = pytest.importorskip("tensorflow_privacy")
pytestmark = pytest.mark.tff

CLIPPING_NORM = 0.7
NOISE_MULTIPLIER = 1.3
DENOMINATOR = 20.0
NUM_VALUES = 200_000
FIVE_SIGMA = 5.0 * math.sqrt(2.0 / NUM_VALUES)


def gaussian_query():
    return dp_query.GaussianSumQuery(CLIPPING_NORM, NOISE_MULTIPLIER * CLIPPING_NORM)


def updates(num_updates=12):
    """Updates of very different norms, on both sides of the clipping norm."""
    random = seeds.generator(seeds.root(1))
    return [
        {
            "kernel": tf.constant(scale * random.normal(size=[3, 4]), tf.float32),
            "bias": [tf.constant(scale * random.normal(size=[4]), tf.float32)],
        }
        for scale in np.geomspace(1e-3, 10.0, num_updates)
    ]


def largest_difference(actual, expected):
    pairs = zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True)
    return max(float(np.max(np.abs(np.subtract(a, b)))) for a, b in pairs)


def test_one_update_is_clipped_alike(record_property):
    query = gaussian_query()
    params = query.derive_sample_params(query.initial_global_state())
    ours = [clip_to_norm(update, CLIPPING_NORM)[0] for update in updates()]
    theirs = [query.preprocess_record(params, update) for update in updates()]
    difference = largest_difference(ours, theirs)
    record_property("largest_difference", float(difference))
    assert difference < 1e-6
    assert float(nests.global_norm(ours[-1])) == pytest.approx(CLIPPING_NORM, rel=1e-6)


def test_a_sum_of_clipped_gradients_is_the_same(record_property):
    query = dp_query.GaussianSumQuery(CLIPPING_NORM, 0.0)
    state = query.initial_global_state()
    params = query.derive_sample_params(state)
    records = updates()
    total = query.initial_sample_state(records[0])
    for record in records:
        total = query.accumulate_record(params, total, record)
    expected, _, _ = query.get_noised_result(total, state)
    stacked = tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *records)
    difference = largest_difference(sum_of_clipped(stacked, CLIPPING_NORM), expected)
    record_property("largest_difference", float(difference))
    assert difference < 1e-5


def our_noise():
    """The released mean of updates that are all zero."""
    zeros = tf.zeros([NUM_VALUES])
    stage = chain(
        mean_over_expected_cohort(DENOMINATOR),
        gaussian_mechanism(
            clipping_norm=CLIPPING_NORM, noise_multiplier=NOISE_MULTIPLIER
        ),
    )
    total = Contribution(update=zeros, weight=tf.constant(0.0), metrics={})
    aggregate, _ = stage.decode(stage.init(zeros), total, seeds.root(9))
    return aggregate.update.numpy()


def their_noise():
    query = dp_query.NormalizedQuery(gaussian_query(), denominator=DENOMINATOR)
    state = query.initial_global_state()
    total = query.initial_sample_state(tf.zeros([NUM_VALUES]))
    result, _, _ = query.get_noised_result(total, state)
    return result.numpy()


@pytest.mark.parametrize("noise", [our_noise, their_noise], ids=["ours", "theirs"])
def test_noise_has_the_stated_variance(noise, record_property):
    values = np.float64(noise())
    expected = (NOISE_MULTIPLIER * CLIPPING_NORM / DENOMINATOR) ** 2
    ratio = np.mean(values**2) / expected
    record_property("largest_difference", float(abs(ratio - 1.0)))
    assert abs(ratio - 1.0) < FIVE_SIGMA
    assert abs(np.mean(values)) < 5.0 * math.sqrt(expected / NUM_VALUES)


def test_both_noises_have_the_same_variance(record_property):
    ratio = np.var(our_noise(), dtype=np.float64) / np.var(
        their_noise(), dtype=np.float64
    )
    record_property("largest_difference", float(abs(ratio - 1.0)))
    assert abs(ratio - 1.0) < FIVE_SIGMA * math.sqrt(2.0)
