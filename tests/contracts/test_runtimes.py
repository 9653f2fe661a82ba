"""Every runtime equals plain Python: three rounds, noise on, all kinds of clients."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import (
    mean_over_expected_cohort,
    unweighted_mean,
    weighted_mean,
)
from fedtrain.aggregation.rotation import random_rotation
from fedtrain.aggregation.stochastic_quantisation import stochastic_quantisation
from fedtrain.aggregation.top_k import top_k_with_error_feedback
from fedtrain.client_work.batching import Epochs, Poisson, Steps
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.compression import constraint
from fedtrain.compression.cluster import clustered
from fedtrain.compression.fine_tune import fine_tuned
from fedtrain.compression.prune import pruned
from fedtrain.compression.quantize import quantized
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.models.keras import keras_model
from fedtrain.optimizers.adaptive import adagrad, adam, yogi
from fedtrain.optimizers.schedules import exponential_decay
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.adaptive_clipping import adaptive_gaussian_mechanism
from fedtrain.privacy.correlated_noise import banded_mechanism
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.participation import Participation
from fedtrain.rounds.fed_avg import fed_avg, fed_prox, fed_sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime

SEED = seeds.root(11)
CLIENT_SIZES = (11, 0, 3, 7, 1, 20)
EPOCHS = Epochs(batch_size=4, local_epochs=2)
STEPS = Steps(batch_size=3, local_steps=4)


def remembering(model, batching):
    """Client work that keeps a count and its last update, and leans against it."""
    inner = local_sgd(model, sgd(0.1), batching)

    def init_state(weights):
        return {"count": tf.constant(0), "last": nests.zeros_like(weights.trainable)}

    def start(message, client):
        return inner.start(message, client._replace(state=())), client.state

    def step(carry, batch):
        work, state = inner.step(carry[0], batch), carry[1]
        lean = nests.scale(state["last"], 0.05)
        trainable = nests.subtract(work.weights.trainable, lean)
        weights = work.weights._replace(trainable=trainable)
        return work._replace(weights=weights), state

    def finish(message, carry):
        contribution, _ = inner.finish(message, carry[0])
        last = contribution.update.trainable
        return contribution, {"count": carry[1]["count"] + 1, "last": last}

    return inner._replace(init_state=init_state, start=start, step=step, finish=finish)


def sgd_rounds(model):
    """Rounds whose server takes plain or momentum steps, by name."""
    decayed = sgd(exponential_decay(0.2, decay=0.9), momentum=0.5)
    plain = local_sgd(model, sgd(0.1), EPOCHS)
    poisson = local_sgd(model, decayed, Poisson(sampling_rate=0.4, local_steps=3))
    return {
        "fed_avg": fed_avg(plain),
        "fed_avg_m": fed_avg(plain, server_optimizer=sgd(0.5, momentum=0.9)),
        "fed_sgd": fed_sgd(model, max_rows=8, server_optimizer=sgd(0.3)),
        "fed_prox": fed_prox(model, sgd(0.1), STEPS, proximal_strength=0.1),
        "unweighted": fed_avg(poisson, aggregator=unweighted_mean()),
        "client_state": fed_avg(remembering(model, EPOCHS)),
    }


def adaptive_rounds(model):
    """Rounds whose server adapts its steps, by name."""
    work = local_sgd(model, sgd(0.1), EPOCHS)
    return {
        "fed_adam": fed_avg(work, server_optimizer=adam(0.05)),
        "fed_yogi": fed_avg(work, server_optimizer=yogi(0.05)),
        "fed_adagrad": fed_avg(work, server_optimizer=adagrad(0.05)),
    }


def noisy_rounds(model):
    """Rounds with noise: on the server, in its state, and in each client, by name."""
    work = local_sgd(model, sgd(0.1), EPOCHS)
    private_work = dp_sgd(
        model,
        sgd(0.2),
        clipping_norm=0.5,
        noise_multiplier=1.0,
        sampling_rate=0.3,
        local_steps=2,
        expected_batch_size=3.0,
    )
    mechanisms = {
        "gaussian": gaussian_mechanism(clipping_norm=0.5, noise_multiplier=0.4),
        "banded": banded_mechanism(
            clipping_norm=0.5,
            noise_multiplier=0.4,
            participation=Participation(num_rounds=4, min_separation=2),
        ),
        "adaptive_clipping": adaptive_gaussian_mechanism(
            initial_clipping_norm=0.3, noise_multiplier=0.4, expected_cohort_size=100
        ),
    }
    mean = mean_over_expected_cohort(5)
    central = {
        name: fed_avg(work, aggregator=chain(mean, mechanism))
        for name, mechanism in mechanisms.items()
    }
    return central | {"dp_sgd": fed_avg(private_work, aggregator=mean)}


def compressed_rounds(model):
    """Rounds whose clients send short updates, by name."""
    work, mean = local_sgd(model, sgd(0.1), EPOCHS), weighted_mean()
    grid = (random_rotation(seeds.root(2)), stochastic_quantisation(4))
    return {
        "rotated_int4": fed_avg(work, aggregator=chain(mean, *grid)),
        "top_k": fed_avg(work, aggregator=chain(mean, top_k_with_error_feedback(0.2))),
    }


def model_of(dtype):
    return dense_classifier(5, 3, hidden=[6], dtype=dtype, weight_penalty=1e-3)


def fine_tuning_rounds(model):
    """Rounds under a constraint, noise on, by name."""
    compressed = constraint.chain(pruned(0.5), clustered(5), quantized())
    round_ = fine_tuned(
        lambda model: noisy_rounds(model)["gaussian"], model, compressed
    )
    return {"fine_tuned": round_}


@functools.cache
def example_rounds(dtype):
    model = model_of(dtype)
    return (
        sgd_rounds(model)
        | noisy_rounds(model)
        | adaptive_rounds(model)
        | fine_tuning_rounds(model)
        | compressed_rounds(model)
    )


ROUND_NAMES = list(example_rounds(tf.float32))


def clients(dtype):
    random = seeds.generator(seeds.root(7))
    return {
        f"client-{i}": Examples(
            features=random.normal(size=[rows, 5]).astype(dtype),
            labels=random.integers(0, 3, rows),
            weights=random.uniform(0.5, 2.0, rows).astype(np.float32),
        )
        for i, rows in enumerate(CLIENT_SIZES)
    }


def after_rounds(runtime, round_, dtype, *, num_rounds=3, weights=None):
    """The last result after some rounds, each with all clients but one."""
    state = round_.init(weights or model_of(dtype).init(seeds.root(3)))
    examples = clients(dtype)
    fresh = round_.client_work.init_state(state.weights)
    kept = dict.fromkeys(examples, fresh)
    for number in range(num_rounds):
        cohort = [
            CohortClient(client_id, rows, kept[client_id])
            for i, (client_id, rows) in enumerate(examples.items())
            if i != number
        ]
        result = runtime.run_round(round_, state, cohort, seeds.derive(SEED, number))
        state = result.state
        kept |= result.client_states
    return result._replace(client_states=kept)


@functools.cache
def by_plain_python(name, dtype):
    return after_rounds(EagerRuntime(), example_rounds(dtype)[name], dtype)


def largest_difference(actual, expected):
    """Largest difference over all leaves, relative to each leaf's largest entry."""
    tf.nest.assert_same_structure(actual, expected)
    pairs = zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True)
    differences = [
        np.max(np.abs(np.subtract(a, b))) / max(np.max(np.abs(b)), 1e-30)
        for a, b in pairs
    ]
    return max(differences, default=0.0)


COMPILED = ["graph", "xla", "stacked", "stacked_xla"]
# The other strategies take long to compile, and only their loops are others.
EVERY_WAY = {"fed_avg", "client_state", "gaussian"}
# A last bit decides on which side of its grid a number falls, or which is the larger.
DISCRETE = {"rotated_int4", "top_k"}


@pytest.fixture(
    params=[*COMPILED, pytest.param("tff", marks=pytest.mark.tff)], scope="module"
)
def runtime(request):
    if request.param == "tff":
        return request.getfixturevalue("tff_runtime")
    return CompiledRuntime(strategy=request.param, num_workers=2, chunk_size=2)


def skip_repetitions(runtime, name, dtype):
    if name in DISCRETE and dtype == np.float32:
        pytest.skip("float64 leaves no last bit that decides")
    strategy = strategy_of(runtime)
    if strategy not in {None, "graph"} and (
        name not in EVERY_WAY or dtype == np.float32
    ):
        pytest.skip("the graph loop runs it")


def strategy_of(runtime):
    if not isinstance(runtime, CompiledRuntime):
        return None
    return runtime.execution(example_rounds(np.float32)["fed_avg"])["strategy"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ROUND_NAMES)
def test_every_runtime_agrees_with_plain_python(runtime, name, dtype, record_property):
    skip_repetitions(runtime, name, dtype)
    round_ = example_rounds(dtype)[name]
    expected = by_plain_python(name, dtype)
    actual = after_rounds(runtime, round_, dtype)
    bound = 1e-9 if dtype == np.float64 else 1e-6
    if dtype == np.float32 and name in adaptive_rounds(model_of(dtype)):
        bound = 1e-4
    difference = largest_difference(actual.state, expected.state)
    record_property("largest_difference", float(difference))
    assert difference < bound
    kept = largest_difference(actual.client_states, expected.client_states)
    assert kept < 4 * bound
    assert actual.metrics == pytest.approx(expected.metrics, rel=1e-5)


def keras_round():
    """A Keras model with layers that keep state and draw random numbers."""
    tf.keras.utils.set_random_seed(5)
    layers = [
        tf.keras.layers.Input([5]),
        # A bias would have no gradient before the normalisation, only rounding.
        tf.keras.layers.Dense(6, use_bias=False),
        tf.keras.layers.BatchNormalization(),
        tf.keras.layers.ReLU(),
        tf.keras.layers.Dropout(0.4),
        tf.keras.layers.Dense(3),
    ]
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_model(tf.keras.Sequential(layers), loss=loss)
    return model, fed_avg(local_sgd(model, sgd(0.1), STEPS))


def test_a_keras_model_trains_alike(runtime, record_property):
    model, round_ = keras_round()
    if strategy_of(runtime) not in {None, "graph"}:
        with pytest.raises(ConfigError, match="BatchNormalization"):
            after_rounds(runtime, round_, np.float32, weights=model.init(SEED))
        return
    expected, actual = (
        after_rounds(each, round_, np.float32, weights=model.init(SEED))
        for each in (EagerRuntime(), runtime)
    )
    difference = largest_difference(actual.state, expected.state)
    record_property("largest_difference", float(difference))
    assert difference < 1e-6
    moving_averages = expected.state.weights.state
    assert largest_difference(model.init(SEED).state, moving_averages) > 0.1


@pytest.mark.parametrize("name", noisy_rounds(model_of(np.float32)))
def test_the_same_seed_gives_the_same_bits(runtime, name):
    skip_repetitions(runtime, name, np.float64)
    round_ = example_rounds(np.float32)[name]
    first, second = (
        after_rounds(runtime, round_, np.float32, num_rounds=2) for _ in range(2)
    )
    for one, other in zip(
        tf.nest.flatten(first.state), tf.nest.flatten(second.state), strict=True
    ):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_a_cohort_without_clients_is_a_round(runtime):
    round_ = example_rounds(np.float32)["gaussian"]
    state = round_.init(model_of(np.float32).init(SEED))
    expected = EagerRuntime().run_round(round_, state, [], SEED)
    actual = runtime.run_round(round_, state, [], SEED)
    assert largest_difference(actual.state, expected.state) < 1e-6
    assert largest_difference(actual.state.weights, state.weights) > 0.01


def test_order_statistics_are_refused(runtime):
    round_ = example_rounds(np.float32)["fed_avg"]._replace(needs="contributions")
    state = round_.init(model_of(np.float32).init(SEED))
    with pytest.raises(ConfigError, match="weighted_mean"):
        runtime.run_round(round_, state, [], SEED)
