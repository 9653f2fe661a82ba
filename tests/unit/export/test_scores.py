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


def test_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="predicts a number"):
        scores.decisions(np.zeros([2, 1]), task="regression", from_logits=True)
