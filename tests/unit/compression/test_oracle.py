"""TensorFlow Model Optimization 0.7.5 does the same to a Keras 2 model.

It takes no Keras 3 models, so it is the oracle on Python 3.11 only.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import one_shot
from fedtrain.compression.fine_tune import fine_tuned
from fedtrain.compression.prune import polynomial_sparsity, pruned, pruned_2_of_4
from fedtrain.compression.quantize import quantized
from fedtrain.compression.size import file_gzip_bytes, num_distinct, sparsity
from fedtrain.core import seeds
from fedtrain.data.examples import Examples
from fedtrain.data.sets import mnist
from fedtrain.models.keras import assign, keras_model
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime

pytestmark = pytest.mark.tff
tfmot = pytest.importorskip(
    "tensorflow_model_optimization", reason="needs tensorflow-model-optimization"
)

LOSS = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LEARNING_RATE, BATCH_SIZE, EPOCHS = 0.1, 32, 2


def network():
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.Input([28, 28, 1]),
            layers.Conv2D(8, 5, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )


@functools.cache
def rows():
    split = mnist.load(seed=seeds.root(1))
    clients = [split.train.client(i) for i in range(60)]
    features = np.concatenate([client.features for client in clients])
    labels = np.concatenate([client.labels for client in clients])
    return features, labels, split.test


@pytest.fixture(scope="module")
def trained():
    """A model trained in the ordinary way; its weights."""
    tf.keras.utils.set_random_seed(1)
    model = network()
    features, labels, _ = rows()
    model.compile(tf.keras.optimizers.SGD(LEARNING_RATE), LOSS)
    model.fit(features, labels, BATCH_SIZE, epochs=4, verbose=0)
    return model.get_weights()


def with_weights(weights):
    model = network()
    model.set_weights(weights)
    return model


def theirs(model, wrap, strip, callbacks=(), learning_rate=LEARNING_RATE):
    wrapped = wrap(model)
    features, labels, _ = rows()
    wrapped.compile(tf.keras.optimizers.SGD(learning_rate), LOSS)
    tf.keras.utils.set_random_seed(2)
    wrapped.fit(
        features, labels, BATCH_SIZE, epochs=EPOCHS, verbose=0, callbacks=callbacks
    )
    return strip(wrapped)


def ours(keras_network, constraint, learning_rate=LEARNING_RATE):
    """The same number of passes, as rounds of a single client."""
    model = keras_model(keras_network, loss=LOSS)
    batching = Epochs(batch_size=BATCH_SIZE, local_epochs=1)
    round_ = fine_tuned(
        lambda model: fed_avg(local_sgd(model, sgd(learning_rate), batching)),
        model,
        constraint,
    )
    features, labels, _ = rows()
    state = round_.init(model.init(seeds.root(1)))
    own_state = round_.client_work.init_state(state.weights)
    client = CohortClient(
        "everyone", Examples(features=features, labels=labels), own_state
    )
    runtime = CompiledRuntime(strategy="graph")
    for number in range(EPOCHS):
        seed = seeds.derive(seeds.root(2), number)
        state = runtime.run_round(round_, state, [client], seed).state
    assign(one_shot(state.weights, constraint), keras_network)
    return keras_network


def accuracy(model):
    test = rows()[2]
    outputs = model.predict(test.features, batch_size=1000, verbose=0)
    return 100.0 * float(np.mean(outputs.argmax(-1) == test.labels))


def lite(model, *, calibrated=False):
    """Dynamic range int8, or full int8; whichever a model that knows ranges is for."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if calibrated:
        features = rows()[0]
        converter.representative_dataset = lambda: ([x[None]] for x in features[:200])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def lite_accuracy(content):
    test = rows()[2]
    interpreter = tf.lite.Interpreter(model_content=content)
    given, answer = (
        details[0]["index"]
        for details in (
            interpreter.get_input_details(),
            interpreter.get_output_details(),
        )
    )
    interpreter.resize_tensor_input(given, test.features.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given, test.features)
    interpreter.invoke()
    outputs = interpreter.get_tensor(answer)
    return 100.0 * float(np.mean(outputs.argmax(-1) == test.labels))


def gzip_bytes(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return file_gzip_bytes(path)


def kernels(model):
    return [weight for weight in model.get_weights() if weight.ndim >= 2]


def pruning(schedule, **options):
    def wrap(model):
        prune = tfmot.sparsity.keras.prune_low_magnitude
        return prune(model, pruning_schedule=schedule, **options)

    return wrap


@pytest.mark.parametrize(
    ("options", "constraint"),
    [({}, pruned(0.8)), ({"sparsity_m_by_n": (2, 4)}, pruned_2_of_4())],
    ids=["80 %", "2 of 4"],
)
def test_the_same_weights_are_pruned(options, constraint):
    target = 0.5 if options else 0.8
    schedule = tfmot.sparsity.keras.ConstantSparsity(target, 0, frequency=1)
    tf.keras.utils.set_random_seed(3)
    model = network()
    weights = keras_model(model, loss=LOSS).init(seeds.root(1))
    wrapped = pruning(schedule, **options)(model)
    step = tfmot.sparsity.keras.UpdatePruningStep()
    wrapped.compile(tf.keras.optimizers.SGD(0.0), LOSS)
    images, labels = np.zeros([2, 28, 28, 1], np.float32), np.zeros([2])
    wrapped.fit(images, labels, verbose=0, callbacks=[step])
    expected = tfmot.sparsity.keras.strip_pruning(wrapped)
    actual = one_shot(weights, constraint)
    kernels_only = [leaf.numpy() for leaf in actual.trainable if len(leaf.shape) > 1]
    for mine, other in zip(kernels_only, kernels(expected), strict=True):
        if not (options and mine.shape[-2] % 4):
            np.testing.assert_array_equal(mine, other)


def test_the_schedule_is_the_same():
    oracle = tfmot.sparsity.keras.PolynomialDecay(0.1, 0.9, 3, 40, frequency=1)
    schedule = polynomial_sparsity(0.9, initial=0.1, begin_round=3, end_round=40)
    for step in (3, 4, 20, 39, 40, 90):
        expected = float(oracle(tf.constant(step))[1])
        assert float(schedule(tf.constant(step))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_pruned_models_are_as_good_and_as_small(data_dir, trained):
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.8, 0, frequency=1)
    expected = theirs(
        with_weights(trained),
        pruning(schedule),
        tfmot.sparsity.keras.strip_pruning,
        [tfmot.sparsity.keras.UpdatePruningStep()],
    )
    actual = ours(with_weights(trained), pruned(0.8))
    assert [sparsity(k) for k in kernels(actual)] == pytest.approx(
        [sparsity(k) for k in kernels(expected)], abs=1e-3
    )
    compare(actual, expected)


@pytest.mark.slow
def test_clustered_models_are_as_good_and_as_small(data_dir, trained):
    clustering = tfmot.clustering.keras
    settings = {
        "number_of_clusters": 16,
        "cluster_centroids_init": clustering.CentroidInitialization.LINEAR,
    }
    # It adds up the gradients of a cluster: at 0.1 it forgets everything, and at 0.001
    # it moves weights to other clusters, which makes it smaller and less good.
    still, moved = (
        theirs(
            with_weights(trained),
            lambda model: clustering.cluster_weights(model, **settings),
            clustering.strip_clustering,
            learning_rate=learning_rate,
        )
        for learning_rate in (1e-6, 1e-3)
    )
    even = clustered(16, num_iterations=0, keep_zeros=False)
    actual = ours(with_weights(trained), even)
    assert max(num_distinct(k) for k in kernels(actual)) <= 16
    assert accuracy(actual) >= accuracy(moved) - 0.3
    compare(actual, still)


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")  # theirs has them
@pytest.mark.slow
def test_rounded_models_are_as_good_and_as_small(data_dir, trained):
    # It rounds activations in training, too; ours are measured afterwards. A tenth of
    # the rate that the model was trained with, as its weights are to change little.
    rate = LEARNING_RATE / 10
    quantize = tfmot.quantization.keras.quantize_model
    wrapped = theirs(
        with_weights(trained), quantize, lambda model: model, learning_rate=rate
    )
    own = ours(with_weights(trained), quantized(), learning_rate=rate)
    expected, actual = lite(wrapped), lite(own, calibrated=True)
    assert lite_accuracy(actual) >= lite_accuracy(expected) - 0.3
    assert gzip_bytes(actual) <= 1.02 * gzip_bytes(expected)


def compare(actual, expected):
    assert accuracy(actual) >= accuracy(expected) - 0.3
    assert gzip_bytes(lite(actual)) <= 1.02 * gzip_bytes(lite(expected))
