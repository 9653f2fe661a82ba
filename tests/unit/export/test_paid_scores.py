"""What a private row says of each variant, and how far it can move the sums."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedtrain.core.errors import RefusedExportError
from fedtrain.export.paid_scores import _Answers, _Errors
from fedtrain.privacy.paid_counts import NoisedCounts


def source(task: str) -> Any:
    kind = {"task": task, "from_logits": True}
    return SimpleNamespace(task=task, kind=lambda: kind)


def test_answers_lost_and_gained_are_counted_by_variant() -> None:
    labels = np.array([0, 1, 1])
    own, other = np.eye(2)[[0, 1, 0]], np.eye(2)[[1, 1, 1]]
    vectors = _Answers(source("classification"), 1).vectors(labels, own, [other, own])
    assert vectors.tolist() == [[1, 0, 1, 0], [1, 0, 0, 0], [0, 1, -1, 0]]


@pytest.mark.parametrize("task", ["classification", "next_token", "regression"])
def test_no_row_is_longer_than_what_is_charged(task: str) -> None:
    random = np.random.default_rng(0)
    counting: Any
    if task == "regression":
        counting, labels = _Errors(2.0), random.normal(size=200)
        outputs = [random.normal(scale=9.0, size=(200, 1)) for _ in range(4)]
        outputs[1][3] = np.nan
    else:
        tokens = (200, 5) if task == "next_token" else (200,)
        counting = _Answers(source(task), 5 if task == "next_token" else 1)
        labels = random.integers(3, size=tokens)
        outputs = [random.normal(size=(*tokens, 3)) for _ in range(4)]
    vectors = counting.vectors(labels, outputs[0], outputs[1:])
    squared = np.square(vectors).sum(axis=1)
    assert squared.max() <= counting.squared_norm(3)


def test_counts_are_read_as_shares_of_their_own_noised_number() -> None:
    found = NoisedCounts(np.array([900.0, 100.0, 20.0, -10.0]), 5.0)
    accuracy, drops, noise, num = _Answers(source("classification"), 1).read(found)
    assert (accuracy, drops, noise, num) == (0.9, [2.0, -1.0], 0.5, 1000)


def test_errors_are_read_in_their_own_unit() -> None:
    found = NoisedCounts(np.array([1000.0 * 200, 50_000.0, 500.0]), 10.0)
    error, drops, noise, num = _Errors(4.0).read(found)
    assert (error, drops, num) == (1.0, [1.0], 200)
    assert noise == pytest.approx(0.02)


def test_noise_that_hides_the_rows_is_refused() -> None:
    found = NoisedCounts(np.array([30.0, 5.0, 1.0]), 20.0)
    with pytest.raises(RefusedExportError, match="too few"):
        _Answers(source("classification"), 1).read(found)
