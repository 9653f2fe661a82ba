import numpy as np
import pytest
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.models.model import ModelWeights
from fedtrain.rounds.evaluation import Evaluator, binary_scores, spread

MODEL = dense_classifier(1, 2)
WEIGHTS = ModelWeights(
    [{"kernel": tf.constant([[0.0, 1.0]]), "bias": tf.constant([0.0, 0.0])}]
)


def rows(values, labels):
    return Examples(
        features=np.asarray(values, np.float32)[:, None], labels=np.asarray(labels)
    )


def test_metrics_are_means_over_all_rows_whatever_the_batch():
    random = seeds.generator(seeds.root(3))
    values, labels = random.normal(size=1300), random.integers(0, 2, 1300)
    scores = Evaluator(MODEL).evaluate(WEIGHTS, rows(values, labels))
    signed = np.where(labels == 1, values, -values)
    assert scores["accuracy"] == pytest.approx(np.mean(signed > 0), abs=1e-6)
    assert scores["loss"] == pytest.approx(np.mean(np.log1p(np.exp(-signed))), abs=1e-5)


def test_ranking_scores_of_a_perfect_model():
    scores = binary_scores([0, 0, 1, 1], np.array([[-9.0], [-8.0], [8.0], [9.0]]))
    assert scores["roc_auc"] == scores["pr_auc"] == scores["ks"] == 1.0
    assert scores["brier"] < 1e-6


def test_probabilities_are_not_taken_for_logits():
    scores = binary_scores([0, 1], np.array([0.0, 1.0]), from_logits=False)
    assert scores["brier"] == 0.0


def test_more_than_two_classes_have_no_ranking_scores():
    assert binary_scores([0, 1, 2], np.zeros([3, 3])) == {}


def test_clients_without_rows_are_left_out():
    dataset = from_clients({"a": rows([1.0], [1]), "b": rows([], np.zeros(0, int))})
    scores = Evaluator(MODEL).evaluate_clients(WEIGHTS, dataset)
    assert list(scores) == ["a"]
    assert spread(scores, "accuracy")["mean"] == 1.0
    assert Evaluator(MODEL).evaluate(WEIGHTS, dataset.client(1)) == {}
