import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.core import nests, seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.noise_source import ReleasedNoise
from fedtrain.rounds.dp_fed_sgd import dp_fed_sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.released import released
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import EagerRuntime

SEED = seeds.root(5)
MODEL = dense_classifier(4, 3)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
ROUND = fed_avg(
    dp_sgd(
        MODEL,
        sgd(1.0),
        clipping_norm=0.5,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        local_steps=2,
        expected_batch_size=10.0,
    ),
    aggregator=mean_over_expected_cohort(1.0),
)


def weights_after(round_):
    rows = Examples(
        features=np.ones([20, 4], np.float32), labels=np.zeros(20, np.int32)
    )
    client_state = round_.client_work.init_state(WEIGHTS)
    cohort = [CohortClient("ada", rows, client_state)]
    result = EagerRuntime().run_round(round_, round_.init(WEIGHTS), cohort, SEED)
    trained = tf.nest.flatten(result.state.weights.trainable)
    return np.concatenate([np.ravel(leaf) for leaf in trained])


def test_the_same_round_has_other_noise_and_the_same_promise():
    own = released(ROUND, ReleasedNoise(bytes(32)))
    assert own.server_update.args == ROUND.server_update.args
    assert [m.dp_event for m in own.mechanisms] == [
        m.dp_event for m in ROUND.mechanisms
    ]
    assert all(m.is_released for m in own.mechanisms)
    one, same, simulated = map(
        weights_after, (own, released(ROUND, ReleasedNoise(bytes(32))), ROUND)
    )
    np.testing.assert_array_equal(one, same)
    assert np.all(one != simulated)


def test_a_round_whose_server_adds_the_noise_is_refused():
    central = dp_fed_sgd(
        MODEL,
        sgd(1.0),
        clipping_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        expected_count=5.0,
    )
    with pytest.raises(PrivacyError, match="trust: central"):
        released(central, ReleasedNoise(bytes(32)))
