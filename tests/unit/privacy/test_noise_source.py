import math

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast
from fedtrain.client_work.local_sgd import step_seed
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.core.keystream import KeyStream
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import Batch
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.ghost_clipping import clipped_sum
from fedtrain.privacy.noise_source import (
    NOISE_OF_PARTNERS,
    SEEDED,
    ReleasedNoise,
    scale_bits,
)
from fedtrain.privacy.rounded_gaussian import rounded_gaussian
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.client_program import ClientProgram
from fedtrain.runtimes.eager import contribute

KEY = bytes(range(32))
NOISE = ReleasedNoise(KEY)
SEED = seeds.root(5)
MODEL = dense_classifier(6, 3)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
SETTINGS = {
    "clipping_norm": 0.5,
    "noise_multiplier": 1.3,
    "sampling_rate": 0.5,
    "local_steps": 3,
    "expected_batch_size": 10.0,
}


def rows(num):
    random = seeds.generator(SEED)
    return Examples(
        features=random.normal(size=[num, 6]).astype(np.float32),
        labels=random.integers(0, 3, num).astype(np.int32),
    )


def work(**changes):
    return dp_sgd(MODEL, sgd(1.0), **(SETTINGS | {"noise": NOISE} | changes))


def mechanism(**changes):
    return work(**changes).mechanisms[0]


def flat(nest):
    return np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(nest)])


def noised(total, seed=SEED, step=0, noise=NOISE, **changes):
    return noise.noised(
        total, mechanism(**changes), tf.constant(seed), tf.constant(step)
    )


def in_units(nest, grid):
    """Whole numbers of grid units; the grid itself is a float64 of 53 bits."""
    units = flat(nest) / grid
    np.testing.assert_allclose(units, np.round(units), rtol=1e-15, atol=1e-3)
    return np.round(units)


TOTAL = {"a": tf.constant([[0.3, -0.7]], tf.float64), "b": tf.constant(4.1, tf.float64)}


@pytest.mark.parametrize("noise_multiplier", [0.01, 1.3, 700.0])
def test_what_leaves_is_the_rounded_sum_plus_whole_numbers(noise_multiplier):
    own = mechanism(noise_multiplier=noise_multiplier)
    bits = scale_bits(own)
    grid = own.noise_stddev_on_sum / 2.0**bits
    assert grid <= 0.5 * 2.0**-29
    units = in_units(noised(TOTAL, noise_multiplier=noise_multiplier), grid)
    label = np.asarray(SEED, "<i4").tobytes()
    source = KeyStream(KEY, "dp_sgd", label, 0)
    noise = rounded_gaussian(3, scale_bits=bits, source=source)
    np.testing.assert_array_equal(units, np.round(flat(TOTAL) / grid) + noise)


def test_the_last_bits_do_not_tell_two_sums_apart():
    """Both sums lie on the grid, and the noise on either is any whole number."""
    own = mechanism()
    grid = own.noise_stddev_on_sum / 2.0 ** scale_bits(own)
    for value in (0.0, 1.0 / 3.0):
        total = tf.fill([1000], tf.constant(value, tf.float64))
        units = in_units(noised(total), grid)
        # Uniform last bit of 1,000: 5 standard deviations, once in 1.7 million keys.
        assert abs(np.sum(units % 2) - 500) < 5 * math.sqrt(250)


def test_noise_has_the_stated_width_in_float32_too():
    drawn = flat(noised(tf.zeros([40_000]))) / mechanism().noise_stddev_on_sum
    # 5 standard errors of mean and of standard deviation.
    assert abs(drawn.mean()) < 5 / 200
    assert abs(drawn.std() - 1.0) < 5 / math.sqrt(80_000)


def test_key_seed_and_step_decide_the_noise():
    first = flat(noised(TOTAL))
    np.testing.assert_array_equal(first, flat(noised(TOTAL)))
    for other in (
        noised(TOTAL, step=1),
        noised(TOTAL, seed=seeds.root(6)),
        noised(TOTAL, noise=ReleasedNoise(bytes(32))),
    ):
        assert np.all(first != flat(other))


def test_a_sum_that_is_not_finite_counts_as_zero():
    broken = tf.constant([math.nan, math.inf, 1.0])
    zero = tf.constant([0.0, 0.0, 1.0])
    np.testing.assert_array_equal(flat(noised(broken)), flat(noised(zero)))


def test_a_round_with_the_same_input_repeats_its_seed():
    seed = NOISE.client_seed(3, "input")
    assert seed.dtype == np.int32
    assert seed.shape == (2,)
    np.testing.assert_array_equal(seed, NOISE.client_seed(3, "input"))
    for other in (NOISE.client_seed(4, "input"), NOISE.client_seed(3, "other")):
        assert not np.array_equal(seed, other)


def test_a_compiled_client_equals_plain_python():
    message = Broadcast(tf.constant(0), WEIGHTS)
    client = CohortClient("ada", rows(20), ())
    seed = NOISE.client_seed(0, "input")
    plain, _ = contribute(work(), message, client, seeds.derive(seed, "x"))
    own = work()
    program = ClientProgram(own)
    packed = program.packed(client, seed)
    compiled = program.result(program.function(message, packed)).contribution
    again = program.result(program.function(message, packed)).contribution
    eager, _ = contribute(own, message, client, _client_seed(seed))
    np.testing.assert_allclose(flat(compiled.update), flat(eager.update), atol=1e-6)
    np.testing.assert_array_equal(flat(compiled.update), flat(again.update))
    assert np.abs(flat(plain.update) - flat(eager.update)).max() > 1e-3


def _client_seed(seed):
    from fedtrain.rounds.runtime import client_seed  # noqa: PLC0415

    return client_seed(seed, "ada")


def test_a_simulation_draws_the_noise_that_it_always_drew():
    seeded = mechanism(noise=SEEDED)
    assert seeded.noise_stddev_on_sum == 0.65
    own = SEEDED.noised(TOTAL, seeded, tf.constant(SEED), tf.constant(2))
    noise_seed = tf.unstack(seeds.split(step_seed(SEED, 2), 2))[1]
    expected = seeds.normal_like(TOTAL, noise_seed, stddev=0.65)
    np.testing.assert_array_equal(flat(own), flat(nests.add(TOTAL, expected)))


def test_the_event_is_that_of_the_simulation_and_the_noise_is_wider():
    simulated, real = mechanism(noise=SEEDED), mechanism()
    assert real.dp_event == simulated.dp_event
    assert real.noise_multiplier == simulated.noise_multiplier
    assert real.noise_stddev_on_sum == pytest.approx(0.65 * (1 + 2**-9), rel=1e-12)
    assert real.is_released
    assert not simulated.is_released


def test_one_row_moves_a_float32_sum_by_less_than_the_slack_allows():
    """The assumption of ``ReleasedNoise``, on 2,000 rows: a sixteenth of the slack."""
    examples = rows(2000)
    bound = 0.5

    def total(kept):
        batch = Batch(
            features=tf.constant(examples.features[kept]),
            labels=tf.constant(examples.labels[kept]),
            weights=tf.ones([len(kept)]),
            mask=tf.ones([len(kept)]),
        )
        seed = tf.constant(SEED)
        sums, _ = clipped_sum(MODEL, WEIGHTS, batch, seed, clipping_norm=bound)
        return flat(sums).astype(np.float64)

    everyone = np.arange(2000)
    whole = total(everyone)
    for left_out in (0, 7, 1000, 1999):
        moved = np.linalg.norm(whole - total(np.delete(everyone, left_out)))
        assert moved <= bound * (1.0 + 2.0**-14)


def test_exact_metrics_are_refused_beside_released_noise():
    with pytest.raises(PrivacyError, match="reports_metrics"):
        work(reports_metrics=True)


def test_who_only_describes_the_noise_cannot_draw_it():
    assert mechanism(noise=NOISE_OF_PARTNERS).is_released
    with pytest.raises((ConfigError, tf.errors.OpError), match="32 bytes"):
        noised(TOTAL, noise=NOISE_OF_PARTNERS)


def test_the_key_is_not_shown():
    assert str(KEY) not in repr(NOISE)
    assert KEY.hex() not in repr(mechanism())
