import keras
import numpy as np
import pytest
from keras import layers

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Examples
from fedtrain.models.check_output import check_output
from fedtrain.models.dense import dense_classifier
from fedtrain.models.keras import keras_model

SEED = seeds.root(0)
ROWS = np.random.default_rng(0).normal(size=[9, 5]).astype(np.float32)
CLASSES = np.arange(9) % 3
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
CATEGORICAL = keras.losses.CategoricalCrossentropy(from_logits=True)


def check(model, labels, features=ROWS):
    check_output(model, model.init(SEED), Examples(features=features, labels=labels))


def keras_dense(units, loss):
    model = keras.Sequential([keras.Input([5]), layers.Dense(units)])
    return keras_model(model, loss=loss)


@pytest.mark.parametrize(
    ("units", "loss", "labels"),
    [
        (3, SPARSE, CLASSES),
        (3, SPARSE, CLASSES[:, None]),
        (1, BINARY, CLASSES % 2),
        (1, BINARY, (CLASSES % 2)[:, None].astype(np.float32)),
        (3, CATEGORICAL, np.eye(3)[CLASSES]),
        (1, "mse", CLASSES * 10.0),
        (2, "mse", ROWS[:, :2]),
    ],
)
def test_what_fits_passes(units, loss, labels):
    check(keras_dense(units, loss), labels)


@pytest.mark.parametrize(
    ("units", "loss", "labels", "message"),
    [
        (3, SPARSE, CLASSES + 1, "labels contains 3 at row 2.*0 to 2"),
        (3, SPARSE, CLASSES - 1, "labels contains -1 at row 0"),
        (3, SPARSE, CLASSES + 0.5, "labels contains 0.5"),
        (1, SPARSE, CLASSES, "one number for each row"),
        (3, SPARSE, np.eye(3)[CLASSES], "CategoricalCrossentropy"),
        (1, BINARY, CLASSES, "labels contains 2 at row 2.*0 to 1"),
        (3, BINARY, CLASSES % 2, r"3 numbers.*Dense\(1\)"),
        (3, CATEGORICAL, CLASSES, "SparseCategoricalCrossentropy"),
        (3, "mse", ROWS[:, :2], "loss"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(units, loss, labels, message):
    with pytest.raises(ConfigError, match=message):
        check(keras_dense(units, loss), labels)


def test_rows_of_another_shape_and_infinite_losses_are_refused():
    with pytest.raises(ConfigError, match="cannot be applied"):
        check(keras_dense(3, SPARSE), CLASSES, ROWS[:, :4])
    with pytest.raises(ConfigError, match="not finite"):
        check(keras_dense(3, SPARSE), CLASSES, ROWS * np.nan)


def test_ready_made_models_are_checked_alike():
    with pytest.raises(ConfigError, match="labels contains 2"):
        check(dense_classifier(5, 2), CLASSES)
