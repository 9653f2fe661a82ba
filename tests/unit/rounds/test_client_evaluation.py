import numpy as np
import pytest

from fedtrain.core import seeds
from fedtrain.core.keystream import KeyStream
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.privacy.paid_counts import CountsQuery
from fedtrain.rounds.client_evaluation import ClientEvaluation, simulated_scores
from fedtrain.rounds.evaluation import Evaluator

MODEL = dense_classifier(3, 2)
WEIGHTS = MODEL.init(seeds.root(1))
RANDOM = np.random.Generator(np.random.Philox(4))
ROWS = Examples(
    features=RANDOM.normal(size=(700, 3)).astype(np.float32),
    labels=RANDOM.integers(0, 2, 700),
    entity_ids=np.repeat(np.arange(7), 100),
)
CLIENTS = from_clients({"a": ROWS.slice(0, 600), "b": ROWS.slice(600, 600 + 100)})
EVALUATOR = Evaluator(MODEL)
SEED = seeds.root(2)


def noised(noise_multiplier, **changes):
    values = {"name": "scores", "squared_norm": 1, "rows_per_unit": 1}
    query = CountsQuery(**values | changes, noise_multiplier=noise_multiplier)
    return ClientEvaluation(
        evaluator=EVALUATOR,
        metrics=("accuracy",),
        query=query,
        by_entity=query.rows_per_unit > 1,
    )


def test_exact_sums_over_clients_are_the_means_over_all_rows():
    evaluation = ClientEvaluation(evaluator=EVALUATOR, metrics=EVALUATOR.metrics)
    total = simulated_scores(evaluation, WEIGHTS, CLIENTS, SEED)
    expected = EVALUATOR.evaluate(WEIGHTS, ROWS)
    for name, mean in evaluation.means(total).items():
        assert mean == pytest.approx(expected[name], rel=1e-6)
    assert float(total["loss"].count) == 700.0


def test_without_rows_nothing_is_said():
    evaluation = ClientEvaluation(evaluator=EVALUATOR, metrics=EVALUATOR.metrics)
    empty = from_clients({"a": ROWS.slice(0, 0)})
    assert evaluation.means(simulated_scores(evaluation, WEIGHTS, empty, SEED)) == {}


def test_noised_counts_are_right_on_average_and_repeat_with_their_source():
    exact = EVALUATOR.evaluate(WEIGHTS, ROWS)["accuracy"] * 700
    evaluation = noised(10.0)
    sources = [KeyStream(bytes([i]) * 32) for i in range(50)]
    found = [evaluation.scores(WEIGHTS, ROWS, source=s)["accuracy"] for s in sources]
    # Five standard errors of a fixed seed's mean: one false alarm in a million seeds.
    error = 10.0 / np.sqrt(50)
    assert abs(np.mean([one.total for one in found]) - exact) < 5 * error
    assert abs(np.mean([one.count for one in found]) - 700) < 5 * np.sqrt(2) * error
    assert np.std([one.total for one in found]) > 5.0
    again = evaluation.scores(WEIGHTS, ROWS, source=KeyStream(bytes([0]) * 32))
    assert float(again["accuracy"].total) == float(found[0].total)


def test_of_an_entity_only_its_first_rows_count():
    source = KeyStream(bytes(32))
    evaluation = noised(1e-3, rows_per_unit=3)
    found = evaluation.scores(WEIGHTS, ROWS, source=source)["accuracy"]
    # Each of the two sums was rounded down, and half of a step added again.
    assert abs(float(found.count) - 7 * 3) <= 1.0
    none = evaluation.scores(WEIGHTS, ROWS.slice(0, 0), source=source)["accuracy"]
    assert abs(float(none.count)) <= 1.0


def test_a_noised_accuracy_stays_between_none_and_all():
    evaluation = noised(1000.0)
    for seed in range(20):
        total = simulated_scores(evaluation, WEIGHTS, CLIENTS, seeds.root(seed))
        assert all(0.0 <= value <= 1.0 for value in evaluation.means(total).values())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_row_whose_metric_is_no_number_counts_nothing(monkeypatch, number):
    evaluator = Evaluator(MODEL)

    def by_row(weights, rows, metric):
        total = np.ones(rows.labels.shape[0])
        total[0] = number
        return total, np.ones_like(total)

    monkeypatch.setattr(evaluator, "_by_row", by_row)
    counts = evaluator.counts(WEIGHTS, ROWS.slice(0, 3), "accuracy")
    assert counts.tolist() == [[0, 0], [1, 0], [1, 0]]
