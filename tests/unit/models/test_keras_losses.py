import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.models import losses
from fedtrain.models.keras_losses import loss_quantity, metric_quantities
from fedtrain.models.model import MaskedOutputs

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=[6, 3]).astype(np.float32)
CLASSES = np.array([0, 1, 2, 2, 1, 0])
ONE_LOGIT = LOGITS[:, :1]
BINARY = np.array([0, 1, 1, 0, 1, 0])
TOKEN_LOGITS = RANDOM.normal(size=[6, 4, 3]).astype(np.float32)
TOKENS = RANDOM.integers(0, 3, [6, 4])
SPARSE = keras.losses.SparseCategoricalCrossentropy


def mean(values):
    return float(tf.reduce_sum(values.total) / tf.reduce_sum(values.count))


@pytest.mark.parametrize(
    ("loss", "labels", "outputs"),
    [
        (SPARSE(from_logits=True), CLASSES, LOGITS),
        ("sparse_categorical_crossentropy", CLASSES, tf.nn.softmax(LOGITS)),
        (SPARSE(from_logits=True), TOKENS, TOKEN_LOGITS),
        (SPARSE(from_logits=True, ignore_class=0), TOKENS, TOKEN_LOGITS),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
            np.eye(3, dtype=np.float32)[CLASSES],
            LOGITS,
        ),
        (keras.losses.BinaryCrossentropy(from_logits=True), BINARY[:, None], ONE_LOGIT),
        ("mse", BINARY[:, None].astype(np.float32), ONE_LOGIT),
        (keras.losses.Huber(), LOGITS * 2, LOGITS),
    ],
    ids=[
        "logits",
        "probabilities",
        "tokens",
        "ignored class",
        "smoothed",
        "binary",
        "squares",
        "huber",
    ],
)
def test_the_mean_over_rows_is_the_loss_of_keras(loss, labels, outputs):
    quantity = loss_quantity(loss, None)
    values = quantity(tf.constant(labels), tf.constant(outputs))
    assert values.total.shape == values.count.shape == [6]
    object_ = keras.losses.MeanSquaredError() if loss == "mse" else loss
    if isinstance(object_, str):
        object_ = SPARSE()
    assert mean(values) == pytest.approx(float(object_(labels, outputs)), rel=1e-6)


def test_labels_without_the_last_axis_are_matched_to_one_output():
    quantity = loss_quantity(keras.losses.BinaryCrossentropy(from_logits=True), None)
    flat = quantity(tf.constant(BINARY), tf.constant(ONE_LOGIT))
    expected = losses.binary_cross_entropy(BINARY, ONE_LOGIT)
    np.testing.assert_allclose(flat.total, expected.total, atol=1e-6)


def test_a_mask_counts_real_places_only():
    mask = np.array([[1, 1, 0, 0]] * 3 + [[1, 1, 1, 1]] * 2 + [[0, 0, 0, 0]], bool)
    outputs = MaskedOutputs(tf.constant(TOKEN_LOGITS), tf.constant(mask))
    loss = loss_quantity(SPARSE(from_logits=True), None)
    values = loss(tf.constant(TOKENS), outputs)
    np.testing.assert_array_equal(values.count, mask.sum(1))
    each = SPARSE(from_logits=True, reduction="none")(TOKENS, TOKEN_LOGITS)
    np.testing.assert_allclose(values.total, (each * mask).numpy().sum(1), rtol=1e-6)
    hits = metric_quantities(None, loss)["accuracy"](tf.constant(TOKENS), outputs)
    right = (TOKEN_LOGITS.argmax(-1) == TOKENS) * mask
    np.testing.assert_allclose(hits.total, right.sum(1))


def test_metrics_equal_keras_and_accuracy_knows_logits():
    loss = loss_quantity(SPARSE(from_logits=True), None)
    named = metric_quantities(
        ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")], loss
    )
    assert list(named) == ["accuracy", "top"]
    for name, metric in (
        ("accuracy", keras.metrics.SparseCategoricalAccuracy()),
        ("top", keras.metrics.SparseTopKCategoricalAccuracy(2)),
    ):
        metric.update_state(CLASSES, LOGITS)
        got = mean(named[name](tf.constant(CLASSES), tf.constant(LOGITS)))
        assert got == pytest.approx(float(metric.result()))
    binary = loss_quantity(keras.losses.BinaryCrossentropy(from_logits=True), None)
    accuracy = metric_quantities(["accuracy"], binary)["accuracy"]
    expected = np.mean((ONE_LOGIT[:, 0] > 0) == BINARY)
    got = mean(accuracy(tf.constant(BINARY), tf.constant(ONE_LOGIT)))
    assert got == pytest.approx(expected)


def test_what_does_not_add_up_over_rows_is_refused():
    loss = loss_quantity("mse", None)
    with pytest.raises(ConfigError, match=r"auc.*no mean over rows"):
        metric_quantities([keras.metrics.AUC(name="auc")], loss)
    batch_mean = loss_quantity(lambda y, p: tf.reduce_mean(tf.square(y - p)), None)
    with pytest.raises(ConfigError, match="one number for a whole batch"):
        batch_mean(tf.constant(LOGITS), tf.constant(LOGITS))
    with pytest.raises(ConfigError, match="several outputs"):
        loss_quantity({"a": "mse"}, None)


def test_class_weights_need_every_class_and_a_classification_loss():
    with pytest.raises(ConfigError, match=r"every class.*\[0, 2\]"):
        loss_quantity(SPARSE(), {0: 1.0, 2: 1.0})
    with pytest.raises(ConfigError, match="classification"):
        loss_quantity("mse", {0: 1.0})
    weighted = loss_quantity(losses.binary_cross_entropy, {0: 1.0, 1: 3.0})
    plain = losses.binary_cross_entropy(BINARY, ONE_LOGIT)
    got = weighted(tf.constant(BINARY), tf.constant(ONE_LOGIT))
    np.testing.assert_allclose(got.total, plain.total * (1 + 2 * BINARY), rtol=1e-6)
