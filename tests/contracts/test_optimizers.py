"""What every optimizer promises, and Keras's optimizers as the second opinion."""

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.optimizers import schedules
from fedtrain.optimizers.adaptive import adagrad, adam, yogi
from fedtrain.optimizers.sgd import sgd

OPTIMIZERS = {
    "sgd": sgd(0.1),
    "momentum": sgd(0.05, momentum=0.9),
    "weight_decay": sgd(0.1, weight_decay=0.01),
    "scheduled": sgd(schedules.cosine_decay(0.1, num_steps=100, final=0.01)),
    "adam": adam(0.1),
    "corrected_adam": adam(0.1, bias_correction=True),
    "yogi": yogi(0.1),
    "adagrad": adagrad(0.5),
}
TARGET = {"b": [tf.constant([1.0, -2.0])], "a": tf.constant([[0.5]])}


@pytest.fixture(params=OPTIMIZERS.values(), ids=OPTIMIZERS)
def optimizer(request):
    return request.param


def minimised(optimizer, weights, *, num_steps, update=None):
    """Weights and slots after descending half the squared distance to ``TARGET``."""
    slots = optimizer.init(weights)
    for _ in range(num_steps):
        gradients = tf.nest.map_structure(
            lambda w, t: w - tf.cast(t, w.dtype), weights, TARGET
        )
        weights, slots = (update or optimizer.update)(weights, slots, gradients)
    return weights, slots


def zeros(dtype=tf.float32):
    return tf.nest.map_structure(lambda t: tf.zeros(t.shape, dtype), TARGET)


def test_reaches_a_minimum(optimizer):
    weights, _ = minimised(optimizer, zeros(), num_steps=150)
    tf.nest.map_structure(
        lambda w, t: np.testing.assert_allclose(w, t, atol=0.05), weights, TARGET
    )


def test_slots_keep_their_structure_and_count_steps(optimizer):
    before = optimizer.init(zeros())
    _, after = minimised(optimizer, zeros(), num_steps=3)
    tf.nest.assert_same_structure(before, after)
    assert int(tf.nest.flatten(before)[0]) == 0
    assert int(tf.nest.flatten(after)[0]) == 3


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_a_graph_computes_what_plain_python_does(optimizer, dtype):
    graph = tf.function(optimizer.update)
    expected, _ = minimised(optimizer, zeros(dtype), num_steps=5)
    actual, _ = minimised(optimizer, zeros(dtype), num_steps=5, update=graph)
    tolerance = 1e-6 if dtype == tf.float32 else 1e-9
    for one, other in zip(
        tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True
    ):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=tolerance)


@pytest.mark.parametrize(
    ("ours", "keras"),
    [
        (sgd(0.1), tf.keras.optimizers.SGD(0.1)),
        (sgd(0.1, momentum=0.9), tf.keras.optimizers.SGD(0.1, momentum=0.9)),
        (
            adam(0.1, epsilon=1e-7, bias_correction=True, initial_second_moment=0.0),
            tf.keras.optimizers.Adam(0.1, beta_2=0.99, epsilon=1e-7),
        ),
        (
            adagrad(0.1, epsilon=1e-7, initial_second_moment=0.1),
            tf.keras.optimizers.Adagrad(0.1),
        ),
    ],
    ids=["sgd", "momentum", "adam", "adagrad"],
)
def test_keras_takes_the_same_steps(ours, keras):
    expected, _ = minimised(ours, zeros(), num_steps=10)
    variables = [tf.Variable(w) for w in tf.nest.flatten(zeros())]
    targets = tf.nest.flatten(TARGET)
    for _ in range(10):
        gradients = [v - t for v, t in zip(variables, targets, strict=True)]
        keras.apply_gradients(zip(gradients, variables, strict=True))
    for one, other in zip(tf.nest.flatten(expected), variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_second_moment_starts_at_epsilon_squared_unless_told():
    _, _, second = adam(0.1, epsilon=0.5).init(tf.zeros([2]))
    np.testing.assert_array_equal(second, [0.25, 0.25])
    _, _, second = yogi(0.1, initial_second_moment=0.0).init(tf.zeros([2]))
    np.testing.assert_array_equal(second, [0.0, 0.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: sgd(0.0),
        lambda: sgd(0.1, momentum=1.0),
        lambda: adam(0.1, beta_1=1.0),
        lambda: adam(0.1, beta_2=1.0),
        lambda: yogi(0.1, epsilon=0.0),
        lambda: adagrad(0.1, initial_second_moment=-1.0),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="must be"):
        make()


def test_schedules_follow_their_formulas():
    decay = schedules.exponential_decay(0.8, decay=0.5, every=2)
    np.testing.assert_allclose([decay(0), decay(2), decay(4)], [0.8, 0.4, 0.2])
    cosine = schedules.cosine_decay(1.0, num_steps=10, final=0.2)
    np.testing.assert_allclose([cosine(0), cosine(5), cosine(99)], [1.0, 0.6, 0.2])
    warm = schedules.linear_warmup(schedules.constant(1.0), num_steps=4)
    np.testing.assert_allclose([warm(0), warm(3), warm(9)], [0.25, 1.0, 1.0])
