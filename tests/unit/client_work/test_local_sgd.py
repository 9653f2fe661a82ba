import numpy as np
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.client_work import Broadcast
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import contribute

MODEL = dense_classifier(2, 3, dtype=tf.float64)
FEATURES = np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]])
LABELS = np.array([0, 2, 1])


def run(work, weights, row_weights=None):
    examples = Examples(features=FEATURES, labels=LABELS, weights=row_weights)
    client = CohortClient("a", examples, ())
    message = Broadcast(tf.constant(0), weights)
    return contribute(work, message, client, seeds.root(0))[0]


def softmax_gradient(weights, row_weights):
    layer = weights.trainable[0]
    logits = FEATURES @ layer["kernel"].numpy() + layer["bias"].numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    errors = (probabilities - np.eye(3)[LABELS]) * row_weights[:, None] / 3
    return FEATURES.T @ errors, errors.sum(axis=0)


def test_one_step_is_the_learning_rate_times_the_gradient_by_hand():
    weights = MODEL.init(seeds.root(1))
    work = local_sgd(MODEL, sgd(0.5), Epochs(batch_size=3))
    update = run(work, weights).update.trainable[0]
    kernel, bias = softmax_gradient(weights, np.ones(3))
    np.testing.assert_allclose(update["kernel"], 0.5 * kernel, atol=1e-12)
    np.testing.assert_allclose(update["bias"], 0.5 * bias, atol=1e-12)


def test_row_weights_multiply_the_loss_but_not_the_count():
    weights = MODEL.init(seeds.root(1))
    work = local_sgd(MODEL, sgd(1.0), Epochs(batch_size=3))
    row_weights = np.array([2.0, 0.0, 1.0])
    update = run(work, weights, row_weights).update.trainable[0]
    kernel, _ = softmax_gradient(weights, row_weights)
    np.testing.assert_allclose(update["kernel"], kernel, atol=1e-7)


def test_padding_changes_nothing():
    weights = MODEL.init(seeds.root(1))
    exact = run(local_sgd(MODEL, sgd(1.0), Epochs(batch_size=3)), weights)

    class Padded:
        def indices(self, examples, seed):
            return np.array([[0, -1, 1, 2, -1]], np.int32)

    padded = run(local_sgd(MODEL, sgd(1.0), Padded()), weights)
    for a, b in zip(
        tf.nest.flatten(exact.update), tf.nest.flatten(padded.update), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert float(padded.metrics["loss"].count) == 3.0


def test_the_proximal_term_pulls_towards_the_global_weights():
    weights = MODEL.init(seeds.root(1))
    batching = Epochs(batch_size=1, local_epochs=20)
    free = run(local_sgd(MODEL, sgd(0.5), batching), weights)
    held = run(local_sgd(MODEL, sgd(0.5), batching, proximal_strength=1.0), weights)

    def size(contribution):
        return np.linalg.norm(contribution.update.trainable[0]["kernel"])

    assert size(held) < 0.7 * size(free)


def test_the_weight_is_the_number_of_rows_whatever_the_epochs():
    weights = MODEL.init(seeds.root(1))
    work = local_sgd(MODEL, sgd(0.5), Epochs(batch_size=2, local_epochs=4))
    assert float(run(work, weights).weight) == 3.0


def test_metrics_stay_at_home_when_told():
    weights = MODEL.init(seeds.root(1))
    work = local_sgd(MODEL, sgd(0.5), Epochs(batch_size=2), reports_metrics=False)
    assert run(work, weights).metrics == {}
