import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.client_work import Broadcast, ClientInput
from fedtrain.core import nests, seeds
from fedtrain.core.errors import DataError, PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import Batch
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy import events
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import EagerRuntime, contribute

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
ROWS = seeds.generator(SEED).normal(size=[30, 4]).astype(np.float32)
LABELS = (np.arange(30) % 3).astype(np.int32)
NO_NOISE = 1e-12
SETTINGS = {
    "clipping_norm": 0.5,
    "noise_multiplier": NO_NOISE,
    "sampling_rate": 1.0,
    "local_steps": 1,
    "expected_batch_size": 10.0,
}


def work(**changes):
    return dp_sgd(MODEL, sgd(1.0), **(SETTINGS | changes))


def rows(num=30, entity_ids=None, features=None):
    table = ROWS if features is None else features
    ids = None if entity_ids is None else np.asarray(entity_ids[:num])
    return Examples(features=table[:num], labels=LABELS[:num], entity_ids=ids)


def update(examples, seed=SEED, **changes):
    message = Broadcast(tf.constant(0), WEIGHTS)
    client = CohortClient("ada", examples, ())
    contribution, _ = contribute(work(**changes), message, client, seed)
    return contribution.update.trainable


def gradient(row):
    """By hand: the gradient of cross-entropy of a linear model, as one vector."""
    layer = WEIGHTS.trainable[0]
    logits = ROWS[row] @ layer["kernel"].numpy() + layer["bias"].numpy()
    chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    error = chances - np.eye(3)[LABELS[row]]
    return np.concatenate([error, np.outer(ROWS[row], error).ravel()])


def clipped(vector, norm=0.5):
    return vector * min(1.0, norm / np.linalg.norm(vector))


def flat(trainable):
    return np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(trainable)])


def test_one_step_is_the_sum_of_clipped_gradients_over_the_public_size():
    expected = sum(clipped(gradient(row)) for row in range(30)) / 10.0
    np.testing.assert_allclose(flat(update(rows())), expected, atol=1e-6)


def test_denominator_does_not_follow_the_clients_own_count():
    one = flat(update(rows(1)))
    np.testing.assert_allclose(one, clipped(gradient(0)) / 10.0, atol=1e-7)


def test_weight_says_nothing_of_the_number_of_rows():
    message = Broadcast(tf.constant(0), WEIGHTS)
    weights = [
        contribute(work(), message, CohortClient("ada", rows(num), ()), SEED)[0].weight
        for num in (0, 1, 30)
    ]
    assert [float(weight) for weight in weights] == [1.0, 1.0, 1.0]


def test_an_entitys_gradients_are_summed_before_they_are_clipped():
    ids = [7, 7, 8] + [9] * 27
    entity = {"unit": "entity", "max_rows_per_entity": 2}
    summed = gradient(0) + gradient(1)
    expected = (clipped(summed) + clipped(gradient(2))) / 10.0
    np.testing.assert_allclose(
        flat(update(rows(3, ids), **entity)), expected, atol=1e-6
    )
    # Entity 9 has 27 rows, of which two are drawn: still one clipped vector.
    difference = flat(update(rows(30, ids), **entity)) - expected
    assert np.linalg.norm(difference) <= 0.05 + 1e-6


def test_a_row_that_is_not_finite_changes_nothing():
    broken = ROWS.copy()
    broken[2] = np.nan
    whole = flat(update(rows(3, features=broken)))
    np.testing.assert_allclose(whole, flat(update(rows(2))), atol=1e-6)


def test_noise_is_drawn_afresh_in_each_step_and_from_the_clients_seed():
    noisy = {"noise_multiplier": 1.0, "local_steps": 2, "sampling_rate": 0.5}
    again = flat(update(rows(0), **noisy))
    np.testing.assert_array_equal(again, flat(update(rows(0), **noisy)))
    other = flat(update(rows(0), seed=seeds.root(6), **noisy))
    one_step = flat(update(rows(0), **noisy | {"local_steps": 1}))
    assert not np.allclose(again, other)
    assert not np.allclose(again, 2 * one_step)


def test_the_event_counts_every_step():
    (mechanism,) = work(
        noise_multiplier=1.1, sampling_rate=0.2, local_steps=7
    ).mechanisms
    leaf = events.sampled(0.2, events.gaussian(1.1))
    assert events.counted(mechanism.dp_event) == {leaf: 7}
    assert (mechanism.unit, mechanism.trust) == ("example", "local")


def test_every_step_happens_whatever_is_drawn():
    batching = work(sampling_rate=0.01, local_steps=9).batching
    for num in (0, 1, 30):
        assert len(batching.indices(rows(num), SEED)) == 9


def test_a_compiled_step_agrees_with_plain_python():
    noisy = work(noise_multiplier=1.0)
    message = Broadcast(tf.constant(0), WEIGHTS)
    batch = Batch(
        features=tf.constant(ROWS[:6]),
        labels=tf.constant(LABELS[:6]),
        weights=tf.ones([6]),
        mask=tf.constant([1.0] * 5 + [0.0]),
    )

    def one_step():
        carry = noisy.start(message, ClientInput((), tf.constant(SEED), 5))
        return noisy.finish(message, noisy.step(carry, batch))[0].update.trainable

    np.testing.assert_allclose(
        flat(tf.function(one_step)()), flat(one_step()), atol=1e-6
    )


def test_layers_that_mix_rows_are_refused_with_their_replacement():
    mixing = MODEL._replace(mixing_layers=("batch_normalization",))
    with pytest.raises(PrivacyError, match="GroupNormalization"):
        dp_sgd(mixing, sgd(1.0), **SETTINGS)


def test_many_rows_for_an_example_are_refused():
    with pytest.raises(PrivacyError, match="unit = 'entity'"):
        work(max_rows_per_entity=2)


def test_entities_need_their_ids():
    with pytest.raises(DataError, match="entity_ids"):
        update(rows(), unit="entity", max_rows_per_entity=2)


def test_training_learns_under_noise():
    centres = 3.0 * np.eye(4)[LABELS].astype(np.float32)
    data = rows(features=centres + 0.3 * ROWS)
    private = work(
        noise_multiplier=1.0,
        sampling_rate=0.3,
        local_steps=8,
        expected_batch_size=9.0,
        clipping_norm=1.0,
    )
    round_ = fed_avg(private, aggregator=mean_over_expected_cohort(2.0))
    state = round_.init(WEIGHTS)
    client_state = round_.client_work.init_state(WEIGHTS)
    cohort = [CohortClient(name, data, client_state) for name in ("ada", "bob")]
    for number in range(4):
        seed = seeds.derive(SEED, "round", number)
        state = EagerRuntime().run_round(round_, state, cohort, seed).state
    outputs = MODEL.forward(state.weights, data.features, training=False, seed=SEED)
    assert np.mean(np.argmax(outputs.outputs, -1) == LABELS) > 0.9
