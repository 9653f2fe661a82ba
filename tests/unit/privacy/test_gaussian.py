import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort, unweighted_mean
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.privacy.adaptive_clipping import adaptive_gaussian_mechanism
from fedtrain.privacy.gaussian import gaussian_mechanism

SEED = seeds.root(3)
NO_NOISE = 1e-9


def contribution(values, weight=5.0):
    return Contribution({"w": tf.constant(values, tf.float32)}, tf.constant(weight), {})


def aggregate(aggregator, updates, state=None):
    """The aggregate of one round, and the new state."""
    state = aggregator.init({"w": tf.zeros([2])}) if state is None else state
    shared = aggregator.share(state)
    clients = [
        aggregator.encode(shared, one, aggregator.init_client({}), SEED)[0]
        for one in updates
    ]
    total = clients[0]
    for other in clients[1:]:
        total = nests.add(total, other)
    decoded, state = aggregator.decode(state, total, SEED)
    return decoded.update["w"].numpy(), state


def clipped_mean(num=4.0, **changes):
    options = {"clipping_norm": 1.0, "noise_multiplier": NO_NOISE} | changes
    return chain(mean_over_expected_cohort(num), gaussian_mechanism(**options))


def test_mean_of_clipped_updates_over_the_expected_cohort():
    updates = [contribution([3.0, 4.0]), contribution([0.3, 0.4])]
    mean, _ = aggregate(clipped_mean(), updates)
    np.testing.assert_allclose(mean, [0.9 / 4, 1.2 / 4], rtol=1e-5)


def test_a_client_that_is_not_finite_counts_as_a_zero_update():
    broken = contribution([np.nan, 1.0])
    alone, _ = aggregate(clipped_mean(), [contribution([0.6, 0.8])])
    both, _ = aggregate(clipped_mean(), [contribution([0.6, 0.8]), broken])
    np.testing.assert_allclose(both, alone, rtol=1e-6)


def test_noise_does_not_depend_on_who_answered():
    noisy = clipped_mean(noise_multiplier=1.0)
    zero = contribution([0.0, 0.0])
    one, _ = aggregate(noisy, [zero])
    three, _ = aggregate(noisy, [zero] * 3)
    np.testing.assert_array_equal(one, three)
    assert np.any(one != 0.0)


def test_reading_exact_counts_beside_the_noise_is_refused():
    stage = gaussian_mechanism(clipping_norm=1.0, noise_multiplier=1.0)
    with pytest.raises(PrivacyError, match="mean_over_expected_cohort"):
        chain(unweighted_mean(), stage)


@pytest.mark.parametrize("name", ["clipping_norm", "noise_multiplier"])
def test_no_bound_and_no_noise_are_refused(name):
    values = {"clipping_norm": 1.0, "noise_multiplier": 1.0, name: 0.0}
    with pytest.raises(ConfigError, match=name):
        gaussian_mechanism(**values)


def adaptive(**changes):
    options = {
        "initial_clipping_norm": 1.0,
        "noise_multiplier": 0.5,
        "expected_cohort_size": 100.0,
    }
    return adaptive_gaussian_mechanism(**(options | changes))


def test_adaptive_norm_finds_the_quantile():
    stage = adaptive(clipping_learning_rate=0.5)
    # Norms 0.1, 0.2, ... 10: the median is 5, the count's noise 5 of 100 clients.
    norms = 0.1 * np.arange(1, 101)
    state = stage.init({})
    for number in range(40):
        count = np.sum(norms <= float(stage.share(state))) - 50.0
        zero = contribution([0.0, 0.0])._replace(
            extras=(tf.constant(count, tf.float32),)
        )
        decoded, state = stage.decode(state, zero, seeds.derive(SEED, number))
        assert decoded.extras == ()
    # Stationary sd is about 0.4 here; 1.6 is four of them.
    assert float(stage.share(state)) == pytest.approx(5.0, abs=1.6)


def test_adaptive_clipping_shares_one_number_with_clients():
    stage = adaptive()
    shared = stage.share(stage.init({}))
    assert (shared.shape, shared.dtype) == ((), tf.float64)


def test_unclipped_count_is_centred_so_that_one_client_moves_it_by_half():
    stage = adaptive()
    for values, expected in (([0.6, 0.0], 0.5), ([6.0, 0.0], -0.5)):
        encoded, _ = stage.encode(tf.constant(1.0), contribution(values), (), SEED)
        assert float(encoded.extras[-1]) == expected


def test_a_small_cohort_cannot_adapt():
    with pytest.raises(PrivacyError, match="at least 100"):
        adaptive(expected_cohort_size=99.0)
    with pytest.raises(PrivacyError, match="quantile query alone"):
        adaptive(noise_multiplier=10.0)
