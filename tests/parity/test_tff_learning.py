"""Our rounds against TFF's own: same data, same first weights, same batches.

Three rounds of each algorithm of ``tff.learning.algorithms`` on unequal clients of
handwritten digits, compared with plain Python. The models are written twice: ours as
functions, TFF's as a Keras model.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort, unweighted_mean
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.adaptive import adagrad, adam, yogi
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.rounds.fed_avg import fed_avg, fed_sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import EagerRuntime, contribute

tff = pytest.importorskip("tensorflow_federated")
pytestmark = pytest.mark.tff

TOLERANCE = 1e-5
NUM_ROUNDS = 3
CLIENT_SIZES = (30, 7, 21, 1, 40)
HIDDEN = 12
MODEL = dense_classifier(64, 10, hidden=[HIDDEN])
EPOCHS = Epochs(batch_size=8, local_epochs=2, shuffle=False)
PROXIMAL_STRENGTH = 0.3
CLIPPING_NORM = 0.2
ALMOST_NO_NOISE = 1e-9


@functools.cache
def clients():
    """The digits of each client, in the order of the data set."""
    features, labels = load_digits(return_X_y=True)
    features = (features / 16.0).astype(np.float32)
    ends = np.cumsum(CLIENT_SIZES)
    return [
        Examples(features=features[end - size : end], labels=labels[end - size : end])
        for size, end in zip(CLIENT_SIZES, ends, strict=True)
    ]


@functools.cache
def first_weights():
    return MODEL.init(seeds.root(4))


def ours(round_):
    """Kernels and biases after some rounds in plain Python, and the last metrics."""
    state = round_.init(first_weights())
    client_state = round_.client_work.init_state(state.weights)
    cohort = [
        CohortClient(str(i), examples, client_state)
        for i, examples in enumerate(clients())
    ]
    for number in range(NUM_ROUNDS):
        seed = seeds.derive(seeds.root(0), number)
        result = EagerRuntime().run_round(round_, state, cohort, seed)
        state = result.state
    return in_keras_order(state.weights), result.metrics


def in_keras_order(weights):
    return [layer[name] for layer in weights.trainable for name in ("kernel", "bias")]


def keras_model():
    return tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(64,)),
            tf.keras.layers.Dense(HIDDEN, activation="relu"),
            tf.keras.layers.Dense(10),
        ]
    )


def tff_model():
    return tff.learning.models.functional_model_from_keras(
        keras_model,
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=(
            tf.TensorSpec([None, 64], tf.float32),
            tf.TensorSpec([None], tf.int64),
        ),
    )


def theirs(runtime, process):
    """Kernels and biases after some rounds of a ``tff.learning`` process."""
    datasets = [
        tf.data.Dataset.from_tensor_slices((client.features, client.labels))
        .batch(EPOCHS.batch_size)
        .repeat(EPOCHS.local_epochs)
        for client in clients()
    ]
    first = tff.learning.models.ModelWeights(
        trainable=[np.asarray(leaf) for leaf in in_keras_order(first_weights())],
        non_trainable=[],
    )
    with tff.framework.get_context_stack().install(runtime.context):
        state = process.set_model_weights(process.initialize(), first)
        for _ in range(NUM_ROUNDS):
            state = process.next(state, datasets).state
        return process.get_model_weights(state).trainable


def work():
    return local_sgd(MODEL, sgd(0.1), EPOCHS)


def their_weighted(server_optimizer=None):
    optimizers = tff.learning.optimizers
    return tff.learning.algorithms.build_weighted_fed_avg(
        tff_model(), optimizers.build_sgdm(0.1), server_optimizer
    )


def fed_avg_pair():
    return fed_avg(work()), their_weighted()


def unweighted_fed_avg_pair():
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        tff_model(), tff.learning.optimizers.build_sgdm(0.1)
    )
    return fed_avg(work(), aggregator=unweighted_mean()), process


def client_momentum_pair():
    momentum = local_sgd(MODEL, sgd(0.05, momentum=0.9), EPOCHS)
    process = tff.learning.algorithms.build_weighted_fed_avg(
        tff_model(), tff.learning.optimizers.build_sgdm(0.05, momentum=0.9)
    )
    return fed_avg(momentum), process


def fed_prox_pair():
    # TFF 0.87.0 adds mu * (global - local) to the gradient, which pushes clients away
    # from the global model: its mu is our -mu. See docs/concepts/parity.md.
    process = tff.learning.algorithms.build_weighted_fed_prox(
        tff_model(), PROXIMAL_STRENGTH, tff.learning.optimizers.build_sgdm(0.1)
    )
    return fed_avg(proximal_work(-PROXIMAL_STRENGTH)), process


def proximal_work(strength):
    return local_sgd(MODEL, sgd(0.1), EPOCHS, proximal_strength=strength)


def fed_sgd_pair():
    process = tff.learning.algorithms.build_fed_sgd(
        tff_model(), tff.learning.optimizers.build_sgdm(0.5)
    )
    return fed_sgd(MODEL, max_rows=40, server_optimizer=sgd(0.5)), process


def fed_avg_m_pair():
    server = tff.learning.optimizers.build_sgdm(0.7, momentum=0.9)
    return fed_avg(work(), server_optimizer=sgd(0.7, momentum=0.9)), (
        their_weighted(server)
    )


def fed_adam_pair():
    server = adam(0.01, bias_correction=True, initial_second_moment=0.0)
    process = their_weighted(tff.learning.optimizers.build_adam(0.01, 0.9, 0.99, 1e-3))
    return fed_avg(work(), server_optimizer=server), process


def fed_yogi_pair():
    server = yogi(0.01, bias_correction=True, initial_second_moment=1e-6)
    process = their_weighted(tff.learning.optimizers.build_yogi(0.01, 0.9, 0.99, 1e-3))
    return fed_avg(work(), server_optimizer=server), process


def fed_adagrad_pair():
    server = adagrad(0.1, epsilon=1e-7, initial_second_moment=0.1)
    process = their_weighted(tff.learning.optimizers.build_adagrad(0.1, 0.1, 1e-7))
    return fed_avg(work(), server_optimizer=server), process


def dp_fed_avg_pair():
    num_clients = len(CLIENT_SIZES)
    aggregator = chain(
        mean_over_expected_cohort(num_clients),
        gaussian_mechanism(
            clipping_norm=CLIPPING_NORM, noise_multiplier=ALMOST_NO_NOISE
        ),
    )
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        tff_model(),
        tff.learning.optimizers.build_sgdm(0.1),
        model_aggregator=tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
            ALMOST_NO_NOISE, num_clients, CLIPPING_NORM
        ),
    )
    return fed_avg(work(), aggregator=aggregator), process


@pytest.mark.parametrize(
    "pair",
    [
        fed_avg_pair,
        unweighted_fed_avg_pair,
        client_momentum_pair,
        fed_prox_pair,
        fed_sgd_pair,
        fed_avg_m_pair,
        fed_adam_pair,
        fed_yogi_pair,
        fed_adagrad_pair,
        dp_fed_avg_pair,
    ],
    ids=lambda pair: pair.__name__.removesuffix("_pair"),
)
def test_tff_learning_gives_the_same_weights(pair, tff_runtime, record_property):
    round_, process = pair()
    mine, _ = ours(round_)
    reference = theirs(tff_runtime, process)
    differences = [
        np.max(np.abs(one - other)) for one, other in zip(mine, reference, strict=True)
    ]
    record_property("largest_difference", float(max(differences)))
    moved = max(
        np.max(np.abs(one - first))
        for one, first in zip(mine, in_keras_order(first_weights()), strict=True)
    )
    assert moved > 100 * TOLERANCE
    assert max(differences) < TOLERANCE


def test_our_proximal_term_pulls_clients_towards_the_global_model():
    message = fed_avg(work()).broadcast(fed_avg(work()).init(first_weights()))
    client = CohortClient("0", clients()[0], ())
    distances = [
        float(
            nests.global_norm(
                contribute(proximal_work(strength), message, client, seeds.root(0))[
                    0
                ].update
            )
        )
        for strength in (PROXIMAL_STRENGTH, 0.0, -PROXIMAL_STRENGTH)
    ]
    assert distances == sorted(distances)
    assert distances[2] > 1.01 * distances[0]


def test_clipping_was_active_in_the_private_pair():
    private, _ = ours(dp_fed_avg_pair()[0])
    plain, _ = ours(fed_avg(work(), aggregator=unweighted_mean()))
    assert np.max(np.abs(private[0] - plain[0])) > 100 * TOLERANCE
