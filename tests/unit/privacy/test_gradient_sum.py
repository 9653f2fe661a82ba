import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core import nests, seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy import events
from fedtrain.rounds.dp_fed_sgd import dp_fed_sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import EagerRuntime

MODEL = dense_classifier(3, 2)
SEED = seeds.root(8)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
SETTINGS = {
    "clipping_norm": 0.1,
    "noise_multiplier": 1e-9,
    "sampling_rate": 1.0,
    "expected_count": 20.0,
}


def flat(weights):
    return np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(weights)])


def client(name, num):
    random = seeds.generator(seeds.derive(SEED, name))
    features = random.normal(size=[num, 3]).astype(np.float32)
    return CohortClient(
        name, Examples(features=features, labels=np.zeros(num, np.int32)), ((), ())
    )


def moved(cohort, **changes):
    round_ = dp_fed_sgd(MODEL, sgd(1.0), **(SETTINGS | changes))
    cohort = [
        one._replace(state=round_.client_work.init_state(WEIGHTS)) for one in cohort
    ]
    result = EagerRuntime().run_round(round_, round_.init(WEIGHTS), cohort, SEED)
    return flat(WEIGHTS) - flat(result.state.weights)


def test_one_row_moves_the_model_by_its_bound_over_the_public_count():
    few, many = client("ada", 4), client("ada", 5)
    difference = moved([many]) - moved([few])
    assert 0.0 < np.linalg.norm(difference) <= 0.1 / 20.0 + 1e-7


def test_clients_add_up():
    both = moved([client("ada", 4), client("bob", 6)])
    apart = moved([client("ada", 4)]) + moved([client("bob", 6)])
    np.testing.assert_allclose(both, apart, atol=1e-7)


def test_noise_is_added_once_whatever_the_cohort():
    noisy = {"noise_multiplier": 1.0}
    empty = [client("ada", 0), client("bob", 0)]
    np.testing.assert_allclose(
        moved(empty, **noisy), moved(empty[:1], **noisy), atol=1e-8
    )
    assert np.linalg.norm(moved(empty, **noisy)) > 0.0


def test_more_local_steps_are_refused_and_local_trust_named():
    with pytest.raises(PrivacyError, match="trust = 'local'"):
        dp_fed_sgd(MODEL, sgd(1.0), **SETTINGS, local_steps=2)


def test_layers_that_mix_rows_are_refused():
    with pytest.raises(PrivacyError, match="LayerNormalization"):
        dp_fed_sgd(MODEL._replace(mixing_layers=("bn",)), sgd(1.0), **SETTINGS)


def test_event_knows_of_customers_of_two_banks():
    one, two = (
        dp_fed_sgd(
            MODEL,
            sgd(1.0),
            **SETTINGS | {"noise_multiplier": 2.0, "sampling_rate": rate},
            unit="entity",
            max_clients_per_entity=copies,
        ).mechanisms[0]
        for rate, copies in ((1.0, 2), (0.5, 2))
    )
    assert one.dp_event == events.gaussian(1.0)
    assert two.dp_event.sampling_probs == (0.25, 0.5, 0.25)
    assert one.trust == "central"
