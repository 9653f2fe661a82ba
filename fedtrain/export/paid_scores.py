"""Scores of variants on private rows: noised counts, charged before a row is read.

A row says whether the trained model is right about it and, for each variant, whether an
answer is lost (1), gained (-1) or the same (0); of a number to predict, how far the
bounded error is. All sums are one query, so one unit moves them by a bounded length
together. The choice between variants uses the noised numbers alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedtrain.core.errors import ConfigError, RefusedExportError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples
from fedtrain.export import record, scores
from fedtrain.export.payment import Payment
from fedtrain.export.server import FEATURES
from fedtrain.export.source import Source
from fedtrain.export.verify import (
    Candidate,
    beyond_bounds,
    feature_inputs,
    run_fresh,
)
from fedtrain.privacy.paid_counts import NoisedCounts, UnitRows
from fedtrain.project.paid_export import EVALUATION
from fedtrain.rounds.evaluation import Evaluator

# An error is counted in so many whole steps up to ``error_bound``.
LEVELS = 1000
_LEAST_ROWS = 5.0


class Judged(NamedTuple):
    """What the paid query says.

    Attributes:
      variants: With noised scores and drops, and refused where these are too large.
      source_scores: Of the trained model, noised.
      num_rows: Noised.
    """

    variants: list[record.Variant]
    source_scores: dict[str, float]
    num_rows: int


def check_judged(source: Source, *, error_bound: float | None) -> None:
    """Raises, before anything is charged, where private rows could not be asked.

    Raises:
      PrivacyError: If the rows do not say whose they are, as their unit needs it.
      ConfigError: If a number is predicted, and ``error_bound`` is missing.
    """
    if source.payment is None or not source.is_judged_privately:
        return
    _counting(source, error_bound)
    knows_clients = source.run.project().split.test_clients is not None
    source.payment.check(_test_rows(source), knows_clients=knows_clients)


def judged(
    source: Source,
    payment: Payment,
    measured: Sequence[tuple[Candidate, record.Variant]],
    bounds: record.Bounds,
    *,
    error_bound: float | None,
) -> Judged:
    """Scores of all variants that are not refused already.

    Args:
      source: The trained model and its run, whose private test rows are asked; it
        has passed ``check_judged``.
      payment: Pays.
      measured: Candidates and what is known of them without private rows.
      bounds: What a variant may lose.
      error_bound: Largest error that counts, where a number is predicted.

    Raises:
      BudgetExhaustedError: If the ledger cannot pay; no row is looked at.
      RefusedExportError: If the noise is as large as what it hides.
    """
    asked = [candidate for candidate, variant in measured if variant.refusal is None]
    counting = _counting(source, error_bound)
    dataset = _test_rows(source)

    def rows() -> UnitRows:
        private = payment.rows(dataset)
        outputs = [_outputs(candidate, private.examples) for candidate in asked]
        own = Evaluator(source.model).predict(source.weights, private.examples)
        vectors = counting.vectors(private.examples.labels, own, outputs)
        return private.with_vectors([vectors])

    squared_norm = counting.squared_norm(len(asked))
    found = payment.ask(EVALUATION, rows, squared_norm=squared_norm)
    own_score, drops, noise, num_rows = counting.read(found)
    remaining = iter(drops)
    variants = [
        variant
        if variant.refusal is not None
        else _with_drop(variant, counting.score, own_score, next(remaining), noise)
        for _, variant in measured
    ]
    return Judged(
        [_refused(variant, bounds) for variant in variants],
        {counting.score: own_score},
        num_rows,
    )


class _Answers(NamedTuple):
    """Counts right answers; a row has up to ``most`` of them (its tokens)."""

    source: Source
    most: int
    score: str = "accuracy"

    def squared_norm(self, num_variants: int) -> int:
        # Right and wrong together are at most ``most``, a loss is between -most and it.
        return self.most**2 * (1 + num_variants)

    def vectors(self, labels: Array, own: Array, others: Sequence[Array]) -> Array:
        right, counted = self._right(labels, own)
        lost = [right - self._right(labels, other)[0] for other in others]
        return np.stack([right, counted - right, *lost], axis=1)

    def read(self, found: NoisedCounts) -> tuple[float, list[float], float, int]:
        right, wrong, *lost = found.sums.tolist()
        num = _enough(right + wrong, found.stddev * np.sqrt(2.0))
        accuracy = float(np.clip(right / num, 0.0, 1.0))
        drops = [100.0 * value / num for value in lost]
        return accuracy, drops, 100.0 * found.stddev / num, round(num)

    def _right(self, labels: Array, outputs: Array) -> tuple[Array, Array]:
        kind = self.source.kind()
        decided = scores.decisions(outputs, **kind)
        right, counts = scores.is_right(labels, decided, task=self.source.task)
        axes = tuple(range(1, labels.ndim))
        return (
            np.sum(right & counts, axis=axes, dtype=np.int64),
            np.sum(counts, axis=axes, dtype=np.int64),
        )


class _Errors(NamedTuple):
    """Sums absolute errors in whole steps, each bounded."""

    bound: float
    score: str = "mean_absolute_error"

    def squared_norm(self, num_variants: int) -> int:
        return LEVELS**2 * (2 + num_variants)

    def vectors(self, labels: Array, own: Array, others: Sequence[Array]) -> Array:
        missed = self._steps(labels, own)
        more = [self._steps(labels, other) - missed for other in others]
        return np.stack([np.full_like(missed, LEVELS), missed, *more], axis=1)

    def read(self, found: NoisedCounts) -> tuple[float, list[float], float, int]:
        rows, missed, *more = found.sums.tolist()
        num = _enough(rows / LEVELS, found.stddev / LEVELS)
        missed = _enough(missed, found.stddev)
        drops = [100.0 * value / missed for value in more]
        error = self.bound * missed / LEVELS / num
        return error, drops, 100.0 * found.stddev / missed, round(num)

    def _steps(self, labels: Array, outputs: Array) -> Array:
        missed = np.abs(scores.errors(labels, outputs)).reshape(len(labels), -1)
        share = np.nan_to_num(missed.mean(axis=1) / self.bound, nan=1.0, posinf=1.0)
        return np.rint(LEVELS * np.minimum(share, 1.0)).astype(np.int64)


def _counting(source: Source, error_bound: float | None) -> _Answers | _Errors:
    if source.task != "regression":
        labels = source.run.project().split.train.examples.labels
        return _Answers(source, int(np.prod(labels.shape[1:], dtype=np.int64)))
    if error_bound is None:
        raise ConfigError(
            f"{source.name} predicts a number: to judge it by private rows, say how "
            "large an error counts at most (export.error_bound), as the noise has to "
            "hide it."
        )
    return _Errors(error_bound)


def _test_rows(source: Source) -> FederatedDataset:
    split = source.run.project().split
    if split.test_clients is not None:
        return split.test_clients
    rows = split.test
    ends = np.array([0, rows.num_examples])
    return FederatedDataset(examples=rows, offsets=ends, client_ids=["all"])


def _outputs(candidate: Candidate, rows: Examples) -> Array:
    asked = {FEATURES: feature_inputs(rows.features)}
    return run_fresh(candidate, asked)[FEATURES][0]


def _with_drop(
    variant: record.Variant, name: str, own: float, drop: float, noise: float
) -> record.Variant:
    lost = -drop * own if name in scores.ERRORS else drop
    return variant.model_copy(
        update={
            "scores": {name: own - lost / 100.0},
            "drop_points": {name: drop},
            "drop_noise_points": {name: noise},
        }
    )


def _refused(variant: record.Variant, bounds: record.Bounds) -> record.Variant:
    refusal = variant.refusal or beyond_bounds(variant.drop_points, bounds)
    return variant.model_copy(update={"refusal": refusal})


def _enough(count: float, stddev: float) -> float:
    """``count``, which the noise must not be able to explain."""
    if count > _LEAST_ROWS * stddev:
        return count
    raise RefusedExportError(
        f"Noise of standard deviation {stddev:.3g} hides a sum of {count:.3g}: these "
        "rows are too few for this epsilon, which is spent. Use more rows, or a larger "
        "export.evaluation_epsilon, or public rows. Nothing was released."
    )
