"""How good weights are on given rows."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.special import expit, softmax
from sklearn import metrics as sklearn_metrics

from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples, map_arrays
from fedtrain.models.model import (
    Batch,
    Model,
    ModelWeights,
    PerExample,
    output_values,
    sums,
)

_BATCH_SIZE = 512


class Evaluator:
    """Evaluates one model's weights; compiles once, whatever is asked later."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._forward = tf.function(
            self._outputs_and_sums, autograph=False, reduce_retracing=True
        )
        self._by_row = tf.function(self._rows, autograph=False, reduce_retracing=True)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what adds up over rows: the loss first."""
        return ("loss", *self._model.metrics)

    def evaluate(self, weights: ModelWeights, examples: Examples) -> dict[str, float]:
        """Mean loss and metrics over all rows; for two classes, ranking scores too."""
        outputs, values = self._run(weights, examples)
        if not examples.num_examples:
            return {}
        from_logits = getattr(self._model.loss, "from_logits", True)
        scores = binary_scores(examples.labels, outputs, from_logits=from_logits)
        return values | scores

    def sums(self, weights: ModelWeights, examples: Examples) -> dict[str, PerExample]:
        """Exact totals and counts of loss and metrics, float64 scalars."""
        total = np.zeros([len(self.metrics), 2])
        for rows in _batches(examples):
            batch_sums = self._forward(weights, _whole_batch(rows))[1]
            total += [[float(v) for v in s] for s in batch_sums.values()]
        return {
            name: PerExample(np.asarray(own[0]), np.asarray(own[1]))
            for name, own in zip(self.metrics, total, strict=True)
        }

    def counts(
        self, weights: ModelWeights, examples: Examples, metric: str
    ) -> npt.NDArray[np.int64]:
        """How often each row is right by ``metric``, and how often not: int [rows, 2].

        A row is one thing, or as many as it has places that count (its tokens).
        """
        parts = [np.zeros([0, 2])]
        for rows in _batches(examples):
            own = self._by_row(weights, _whole_batch(rows), metric)
            right, counted = (np.asarray(value, np.float64) for value in own)
            parts.append(np.stack([right, counted - right], axis=1))
        found = np.concatenate(parts)
        whole = np.isfinite(found).all(axis=1, keepdims=True)
        return np.rint(np.where(whole, found, 0.0)).astype(np.int64)

    def predict(self, weights: ModelWeights, examples: Examples) -> npt.NDArray[Any]:
        """The model's outputs, [rows, ...]."""
        return self._run(weights, examples)[0]

    def evaluate_clients(
        self, weights: ModelWeights, dataset: FederatedDataset
    ) -> dict[str, dict[str, float]]:
        """``evaluate`` for each client that has rows, by client id."""
        sizes = dataset.num_examples()
        return {
            dataset.client_id(i): self.evaluate(weights, dataset.client(i))
            for i in np.flatnonzero(sizes)
        }

    def _run(
        self, weights: ModelWeights, examples: Examples
    ) -> tuple[npt.NDArray[Any], dict[str, float]]:
        parts, totals = [], None
        for rows in _batches(examples):
            outputs, batch_sums = self._forward(weights, _whole_batch(rows))
            parts.append(outputs.numpy())
            flat = np.asarray([[float(v) for v in s] for s in batch_sums.values()])
            totals = flat if totals is None else totals + flat
            names = list(batch_sums)
        if totals is None:
            return np.zeros([0]), {}
        means = totals[:, 0] / np.maximum(totals[:, 1], 1.0)
        return np.concatenate(parts), dict(zip(names, means.tolist(), strict=True))

    def _outputs_and_sums(self, weights: ModelWeights, batch: Batch) -> Any:
        seed = tf.constant([0, 0])
        result = self._model.forward(weights, batch.features, training=False, seed=seed)
        values = output_values(result.outputs)
        return values, sums(self._model, batch, result.outputs)

    def _rows(self, weights: ModelWeights, batch: Batch, metric: str) -> PerExample:
        seed = tf.constant([0, 0])
        result = self._model.forward(weights, batch.features, training=False, seed=seed)
        return self._model.metrics[metric](batch.labels, result.outputs)


def binary_scores(
    labels: Any, outputs: Any, *, from_logits: bool = True
) -> dict[str, float]:
    """Ranking and calibration scores of a two-class model; empty for any other.

    ``roc_auc``; ``pr_auc`` (average precision); ``ks``, the largest distance between
    the two classes' score distributions; ``brier``, the mean squared error of the
    probability. Outputs are logits, or probabilities where ``from_logits`` is false.
    """
    outputs = np.asarray(outputs, np.float64)
    probability = _positive_probability(outputs, from_logits=from_logits)
    labels = np.asarray(labels).reshape([-1])
    if probability is None or len(probability) != len(labels):
        return {}
    if set(np.unique(labels)) != {0, 1}:
        return {}
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(labels, probability)
    return {
        "roc_auc": float(sklearn_metrics.auc(false_rate, true_rate)),
        "pr_auc": float(sklearn_metrics.average_precision_score(labels, probability)),
        "ks": float(np.max(true_rate - false_rate)),
        "brier": float(np.mean(np.square(probability - labels))),
    }


def spread(
    by_client: Mapping[str, Mapping[str, float]], metric: str
) -> dict[str, float]:
    """Mean, least, median and greatest of ``metric`` over clients."""
    values = [scores[metric] for scores in by_client.values() if metric in scores]
    if not values:
        return {}
    return {
        "mean": float(np.mean(values)),
        "min": float(np.min(values)),
        "median": float(np.median(values)),
        "max": float(np.max(values)),
    }


def _positive_probability(
    outputs: npt.NDArray[Any], *, from_logits: bool
) -> npt.NDArray[Any] | None:
    if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
        flat = outputs.reshape([-1])
        return np.asarray(expit(flat)) if from_logits else flat
    if outputs.ndim == 2 and outputs.shape[1] == 2:
        return np.asarray((softmax(outputs, axis=1) if from_logits else outputs)[:, 1])
    return None


def _batches(examples: Examples) -> Iterator[Examples]:
    for start in range(0, examples.num_examples, _BATCH_SIZE):
        yield examples.slice(start, start + _BATCH_SIZE)


def _whole_batch(rows: Examples) -> Batch:
    ones = tf.ones([rows.num_examples])
    return Batch(
        features=map_arrays(tf.convert_to_tensor, rows.features),
        labels=tf.convert_to_tensor(rows.labels),
        weights=ones,
        mask=ones,
    )
