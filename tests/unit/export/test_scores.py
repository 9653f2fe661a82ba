import numpy as np
import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.export import scores


def test_decisions_of_one_logit_and_of_several() -> None:
    one = scores.decisions(
        np.array([[-0.1], [0.2]]), task="classification", from_logits=True
    )
    assert one.tolist() == [0, 1]
    share = scores.decisions(
        np.array([[0.4], [0.6]]), task="classification", from_logits=False
    )
    assert share.tolist() == [0, 1]
    many = scores.decisions(
        np.array([[0.0, 2.0, 1.0]]), task="classification", from_logits=True
    )
    assert many.tolist() == [1]


def test_padding_counts_neither_as_right_nor_as_wrong() -> None:
    outputs = np.eye(3)[[[1, 2, 0]]]
    found = scores.scores(
        np.array([[1, 1, 0]]), outputs, task="next_token", from_logits=True
    )
    assert found == {"accuracy": 0.5}


def test_two_classes_are_ranked_too() -> None:
    outputs = np.array([[-2.0], [1.0], [2.0], [-1.0]])
    found = scores.scores(
        np.array([0, 0, 1, 1]), outputs, task="classification", from_logits=True
    )
    assert found == {"accuracy": 0.5, "roc_auc": 0.75}


def test_slices_are_labels_by_name_then_clients() -> None:
    labels = np.array([0, 1, 1])
    groups = (("a", "b"), np.array([0, 0, 1]))
    found = [
        (part.kind, part.name, part.rows.tolist())
        for part in scores.slices(labels, ("no", "yes"), groups)
    ]
    assert found == [
        ("label", "no", [0]),
        ("label", "yes", [1, 2]),
        ("client", "a", [0, 1]),
        ("client", "b", [2]),
    ]


NUMBERS = {"task": "regression", "from_logits": True}


def test_numbers_are_judged_by_their_errors() -> None:
    labels, own = np.array([0.0, 1.0, 2.0]), np.array([[1.0], [1.0], [4.0]])
    found = scores.scores(labels, own, **NUMBERS)
    assert found == {"mean_squared_error": 5 / 3, "mean_absolute_error": 1.0}
    worse = scores.scores(labels, own + 1.0, **NUMBERS)
    assert scores.drops(found, worse) == pytest.approx(
        {"mean_squared_error": 180.0, "mean_absolute_error": 100.0}
    )
    assert scores.rise(0.0, 1e-9) == np.inf
    assert scores.rise(0.0, 0.0) == 0.0


def test_numbers_agree_where_the_difference_is_small_beside_the_error() -> None:
    labels, own = np.zeros(4), np.array([[1.0], [-1.0], [1.0], [-1.0]])
    other = own + np.array([[0.05], [-0.09], [0.11], [np.nan]])
    assert scores.agreement(labels, own, other, **NUMBERS) == 0.5


def test_row_of_several_numbers_agrees_where_each_does() -> None:
    labels, own = np.zeros([2, 2]), np.array([[1.0, 100.0], [-1.0, -100.0]])
    other = own + np.array([[0.05, 9.0], [0.5, 0.0]])
    assert scores.agreement(labels, own, other, **NUMBERS) == 0.5
    assert scores.agreement(None, own + 1e6, other + 1e6, **NUMBERS) == 0.5


def test_padding_neither_agrees_nor_disagrees() -> None:
    own, other = np.eye(3)[[[1, 2, 0, 0]]], np.eye(3)[[[1, 1, 1, 1]]]
    tokens = {"task": "next_token", "from_logits": True}
    labels = np.array([[1, 1, 0, 0]])
    assert scores.agreement(labels, own, other, **tokens) == 0.5
    assert scores.agreement(None, own, other, **tokens) == 0.25


def test_slice_of_numbers_loses_the_rise_of_its_own_error() -> None:
    labels, own, other = np.zeros(3), np.array([1.0, 2.0, 9.0]), np.ones(3)
    rows = np.array([0, 1])
    assert scores.slice_drop(labels, own, other, rows, **NUMBERS) == pytest.approx(-60)
    assert list(scores.slices(np.array([0.5, 1.0]), (), None)) == []


def test_one_output_is_needed_for_each_number() -> None:
    with pytest.raises(ConfigError, match="one for each"):
        scores.scores(np.zeros(3), np.zeros([3, 2]), **NUMBERS)
