"""Clipping and noise against TensorFlow Privacy's dp_query: a second opinion."""

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.privacy.adaptive_clipping import adaptive_gaussian_mechanism
from fedtrain.privacy.clipping import clip_to_norm, sum_of_clipped
from fedtrain.privacy.gaussian import gaussian_mechanism

tfp = pytest.importorskip("tensorflow_privacy")
pytestmark = pytest.mark.tff
SIZE = 20_000


def records():
    random = seeds.generator(seeds.root(4))
    scales = [0.01, 0.5, 3.0, 100.0]
    return [
        [(scale * random.normal(size=shape)).astype(np.float32) for shape in ([7], [3])]
        for scale in scales
    ]


def test_clipping_agrees():
    query = tfp.GaussianSumQuery(l2_norm_clip=1.5, stddev=0.0)
    params = query.derive_sample_params(query.initial_global_state())
    for record in records():
        expected = query.preprocess_record(params, record)
        actual, _ = clip_to_norm(record, 1.5)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_sum_of_clipped_records_agrees():
    query = tfp.GaussianSumQuery(l2_norm_clip=1.5, stddev=0.0)
    params = query.derive_sample_params(query.initial_global_state())
    expected = [tf.zeros([7]), tf.zeros([3])]
    for record in records():
        expected = query.accumulate_record(params, expected, record)
    stacked = [np.stack(leaves) for leaves in zip(*records(), strict=True)]
    for ours, theirs in zip(sum_of_clipped(stacked, 1.5), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_noise_variance_agrees():
    # Two variances of SIZE numbers: relative sd 0.014, 5 sd, false alarm below 1e-6.
    query = tfp.GaussianSumQuery(l2_norm_clip=0.5, stddev=0.5 * 1.3)
    state = query.initial_global_state()
    tf.random.set_seed(1)  # noqa: TID251 - TensorFlow Privacy draws from it
    theirs, _, _ = query.get_noised_result(tf.zeros([SIZE]), state)
    stage = gaussian_mechanism(clipping_norm=0.5, noise_multiplier=1.3)
    zero = Contribution(tf.zeros([SIZE]), tf.constant(0.0), {})
    ours, _ = stage.decode((), zero, seeds.root(4))
    assert np.var(ours.update) == pytest.approx(np.var(theirs), rel=0.07)


def test_adaptive_clipping_splits_its_noise_as_theirs_does():
    query = tfp.QuantileAdaptiveClipSumQuery(
        initial_l2_norm_clip=1.0,
        noise_multiplier=1.0,
        target_unclipped_quantile=0.5,
        learning_rate=0.2,
        clipped_count_stddev=10.0,
        expected_num_records=200.0,
    )
    state = query.initial_global_state()
    ours = adaptive_gaussian_mechanism(
        initial_clipping_norm=1.0, noise_multiplier=1.0, expected_cohort_size=200.0
    )
    details = dict(ours.mechanisms[0].details)
    assert details["noise_stddev_of_unclipped_count"] == 10.0
    # Theirs takes the sum's own multiplier; together they give the total of ours.
    assert float(state.sum_state.stddev) == 1.0
    total = (details["noise_multiplier_of_sum"] ** -2 + 20.0**-2) ** -0.5
    assert total == pytest.approx(1.0)
