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
from fedtrain.models.keras import keras_model
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
NUM_CLIENTS = len(CLIENT_SIZES)
HIDDEN = 12
MODEL = dense_classifier(64, 10, hidden=[HIDDEN])
EPOCHS = Epochs(batch_size=8, local_epochs=2, shuffle=False)
PROXIMAL_STRENGTH = 0.3
CLIPPING_NORM = 0.2
ALMOST_NO_NOISE = 1e-9


@pytest.fixture(autouse=True, scope="module")
def keras_afterwards():
    """Leaves Keras as it was.

    TFF builds Keras layers in a bare graph, which turns their classes into those of
    TensorFlow 1 for the whole process; building them outside of one turns them back.
    """
    yield
    dense_keras_model()
    conv_keras_model()


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


def ours(round_, weights):
    """Kernels and biases after some rounds in plain Python."""
    state = round_.init(weights)
    client_state = round_.client_work.init_state(state.weights)
    cohort = [
        CohortClient(str(i), examples, client_state)
        for i, examples in enumerate(clients())
    ]
    for number in range(NUM_ROUNDS):
        seed = seeds.derive(seeds.root(0), number)
        result = EagerRuntime().run_round(round_, state, cohort, seed)
        state = result.state
    return in_keras_order(state.weights)


def in_keras_order(weights):
    if not isinstance(weights.trainable[0], dict):
        return list(weights.trainable)
    return [layer[name] for layer in weights.trainable for name in ("kernel", "bias")]


def dense_keras_model():
    return tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(64,)),
            tf.keras.layers.Dense(HIDDEN, activation="relu"),
            tf.keras.layers.Dense(10),
        ]
    )


def conv_keras_model():
    # Not a ReLU: the digits' empty corners put it at its kink everywhere at once, and
    # there the last bit of a bias decides.
    return tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer(input_shape=(64,)),
            tf.keras.layers.Reshape((8, 8, 1)),
            tf.keras.layers.Conv2D(4, 3, activation="tanh"),
            tf.keras.layers.LayerNormalization(),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(10),
        ]
    )


def tff_model(model=dense_keras_model):
    return tff.learning.models.functional_model_from_keras(
        model,
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=(
            tf.TensorSpec([None, 64], tf.float32),
            tf.TensorSpec([None], tf.int64),
        ),
    )


def theirs(runtime, process, weights):
    """Kernels and biases after some rounds of a ``tff.learning`` process."""
    datasets = [
        tf.data.Dataset.from_tensor_slices((client.features, client.labels))
        .batch(EPOCHS.batch_size)
        .repeat(EPOCHS.local_epochs)
        for client in clients()
    ]
    first = tff.learning.models.ModelWeights(
        trainable=[np.asarray(leaf) for leaf in in_keras_order(weights)],
        non_trainable=[],
    )
    with tff.framework.get_context_stack().install(runtime.context):
        state = process.set_model_weights(process.initialize(), first)
        for _ in range(NUM_ROUNDS):
            state = process.next(state, datasets).state
        return process.get_model_weights(state).trainable


def work(**options):
    return local_sgd(MODEL, sgd(0.1), EPOCHS, **options)


def their_weighted(server_optimizer=None, *, model=dense_keras_model):
    return tff.learning.algorithms.build_weighted_fed_avg(
        tff_model(model), their_sgd(0.1), server_optimizer
    )


def their_private():
    return tff.learning.algorithms.build_unweighted_fed_avg(
        tff_model(),
        their_sgd(0.1),
        model_aggregator=tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
            ALMOST_NO_NOISE, NUM_CLIENTS, CLIPPING_NORM
        ),
    )


def their_sgd(*arguments, **options):
    return tff.learning.optimizers.build_sgdm(*arguments, **options)


def private_mean():
    mechanism = gaussian_mechanism(
        clipping_norm=CLIPPING_NORM, noise_multiplier=ALMOST_NO_NOISE
    )
    return chain(mean_over_expected_cohort(NUM_CLIENTS), mechanism)


algorithms = tff.learning.algorithms
optimizers = tff.learning.optimizers
PAIRS = {
    "fed_avg": (fed_avg(work()), their_weighted),
    "unweighted_fed_avg": (
        fed_avg(work(), aggregator=unweighted_mean()),
        lambda: algorithms.build_unweighted_fed_avg(tff_model(), their_sgd(0.1)),
    ),
    "client_momentum": (
        fed_avg(local_sgd(MODEL, sgd(0.05, momentum=0.9), EPOCHS)),
        lambda: algorithms.build_weighted_fed_avg(
            tff_model(), their_sgd(0.05, momentum=0.9)
        ),
    ),
    # TFF 0.87.0 adds mu * (global - local) to the gradient, which pushes clients away
    # from the global model: its mu is our -mu. See docs/concepts/parity.md.
    "fed_prox_with_opposite_sign": (
        fed_avg(work(proximal_strength=-PROXIMAL_STRENGTH)),
        lambda: algorithms.build_weighted_fed_prox(
            tff_model(), PROXIMAL_STRENGTH, their_sgd(0.1)
        ),
    ),
    "fed_sgd": (
        fed_sgd(MODEL, max_rows=max(CLIENT_SIZES), server_optimizer=sgd(0.5)),
        lambda: algorithms.build_fed_sgd(tff_model(), their_sgd(0.5)),
    ),
    "fed_avg_m": (
        fed_avg(work(), server_optimizer=sgd(0.7, momentum=0.9)),
        lambda: their_weighted(their_sgd(0.7, momentum=0.9)),
    ),
    "fed_adam": (
        fed_avg(
            work(),
            server_optimizer=adam(
                0.01, bias_correction=True, initial_second_moment=0.0
            ),
        ),
        lambda: their_weighted(optimizers.build_adam(0.01, 0.9, 0.99, 1e-3)),
    ),
    "fed_yogi": (
        fed_avg(work(), server_optimizer=yogi(0.01, bias_correction=True)),
        lambda: their_weighted(optimizers.build_yogi(0.01, 0.9, 0.99, 1e-3, 1e-6)),
    ),
    "fed_adagrad": (
        fed_avg(
            work(),
            server_optimizer=adagrad(0.1, epsilon=1e-7, initial_second_moment=0.1),
        ),
        lambda: their_weighted(optimizers.build_adagrad(0.1, 0.1, 1e-7)),
    ),
    "dp_fed_avg": (fed_avg(work(), aggregator=private_mean()), their_private),
}


def compared(ours_last, first, theirs_last):
    """The largest difference, after checking that training moved the weights."""
    moved = [np.max(np.abs(a - b)) for a, b in zip(ours_last, first, strict=True)]
    assert max(moved) > 100 * TOLERANCE
    pairs = zip(ours_last, theirs_last, strict=True)
    return float(max(np.max(np.abs(a - b)) for a, b in pairs))


@pytest.mark.parametrize("name", PAIRS)
def test_tff_learning_gives_the_same_weights(name, tff_runtime, record_property):
    round_, process = PAIRS[name]
    mine = ours(round_, first_weights())
    reference = theirs(tff_runtime, process(), first_weights())
    difference = compared(mine, in_keras_order(first_weights()), reference)
    record_property("largest_difference", float(difference))
    assert difference < TOLERANCE


def test_an_adapted_keras_model_trains_as_in_tff(tff_runtime, record_property):
    tf.keras.utils.set_random_seed(3)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_model(conv_keras_model(), loss=loss)
    weights = model.init(seeds.root(0))
    mine = ours(fed_avg(local_sgd(model, sgd(0.1), EPOCHS)), weights)
    # TFF comes last: see keras_afterwards.
    process = their_weighted(model=conv_keras_model)
    reference = theirs(tff_runtime, process, weights)
    difference = compared(mine, in_keras_order(weights), reference)
    record_property("largest_difference", float(difference))
    assert difference < TOLERANCE


def test_our_proximal_term_pulls_clients_towards_the_global_model():
    round_ = fed_avg(work())
    message = round_.broadcast(round_.init(first_weights()))
    client = CohortClient("0", clients()[0], ())
    distances = []
    for strength in (PROXIMAL_STRENGTH, 0.0, -PROXIMAL_STRENGTH):
        pulled = work(proximal_strength=strength)
        contribution, _ = contribute(pulled, message, client, seeds.root(0))
        distances.append(float(nests.global_norm(contribution.update)))
    assert distances == sorted(distances)
    assert distances[2] > 1.01 * distances[0]


def test_clipping_was_active_in_the_private_pair():
    private = ours(PAIRS["dp_fed_avg"][0], first_weights())
    plain = ours(PAIRS["unweighted_fed_avg"][0], first_weights())
    assert np.max(np.abs(private[0] - plain[0])) > 100 * TOLERANCE
