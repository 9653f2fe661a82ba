"""How good outputs are, whole and by slice, whatever computed them.

A model that predicts a number is judged by its errors: a drop is then how many per cent
an error rises above the trained model's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Array
from fedtrain.data.sets.split import Task
from fedtrain.rounds.evaluation import binary_scores

ERRORS = ("mean_squared_error", "mean_absolute_error")
# Outputs of a number agree where they differ by less than this share of the error.
_SAME = 0.1


class Slice(NamedTuple):
    """Some of the evaluation rows.

    Attributes:
      kind: ``"label"`` or ``"client"``.
      name: The label's or the client's.
      rows: Their places.
    """

    kind: str
    name: str
    rows: Array


def decisions(outputs: Array, *, task: Task, from_logits: bool) -> Array:
    """The label that each row's outputs stand for; a number stands for itself."""
    if task == "regression":
        return outputs.reshape(len(outputs), -1)
    if task == "classification" and (outputs.ndim == 1 or outputs.shape[-1] == 1):
        threshold = 0.0 if from_logits else 0.5
        return (outputs.reshape(len(outputs)) > threshold).astype(np.int32)
    return np.argmax(outputs, axis=-1)


def is_right(labels: Array, decided: Array, *, task: Task) -> tuple[Array, Array]:
    """Bools and, beside them, whether each counts; a padded token does not."""
    counts = labels != 0 if task == "next_token" else np.ones(labels.shape, bool)
    return decided == labels, counts


def scores(
    labels: Array, outputs: Array, *, task: Task, from_logits: bool
) -> dict[str, float]:
    """Accuracy, in [0, 1]; of two classes also the area under the ROC curve.

    Of numbers, the mean squared and the mean absolute error.
    """
    if task == "regression":
        missed = errors(labels, outputs)
        found = (float(np.mean(missed**2)), float(np.mean(np.abs(missed))))
        return dict(zip(ERRORS, found, strict=True))
    decided = decisions(outputs, task=task, from_logits=from_logits)
    right, counts = is_right(labels, decided, task=task)
    accuracy = {"accuracy": float(right[counts].mean())}
    if task != "classification":
        return accuracy
    ranking = binary_scores(labels, outputs, from_logits=from_logits)
    return accuracy | {n: ranking[n] for n in ("roc_auc",) if n in ranking}


def errors(labels: Array, outputs: Array) -> Array:
    """Output minus label, float64 [rows, ...].

    Raises:
      ConfigError: If there is not one output for each label.
    """
    if outputs.size != labels.size:
        raise ConfigError(
            f"The model gives {outputs.shape[1:]} outputs a row for labels of shape "
            f"{labels.shape[1:]}: a model that predicts numbers gives one for each."
        )
    same = outputs.reshape(labels.shape).astype(np.float64)
    return np.asarray(same - labels.astype(np.float64))


def drops(own: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """What ``found`` loses against ``own``, in points; per cent of an error."""
    return {
        name: rise(value, found[name])
        if name in ERRORS
        else 100.0 * (value - found[name])
        for name, value in own.items()
    }


def rise(own: float, found: float) -> float:
    """How many per cent an error rises; infinite above an error of 0."""
    if own == 0.0:
        return 0.0 if found == 0.0 else np.inf
    return 100.0 * (found / own - 1.0)


def agreement(
    labels: Array | None, own: Array, other: Array, *, task: Task, from_logits: bool
) -> float:
    """Share of decisions that are the same; of padded tokens there are none.

    A row of numbers agrees where each of them differs by less than a tenth of its own
    root mean squared error: a difference that cannot be seen beside the error. Without
    labels the spread of the own outputs takes the place of the error.
    """
    first, second = (
        decisions(outputs, task=task, from_logits=from_logits)
        for outputs in (own, other)
    )
    if task == "regression":
        near = np.abs(first - second) <= _SAME * _scales(labels, first)
        return float(np.mean(near.all(axis=1)))
    same = first == second
    if labels is not None:
        same = same[is_right(labels, first, task=task)[1]]
    return float(np.mean(same))


def _scales(labels: Array | None, own: Array) -> Array:
    """How far each of a row's numbers is off, [numbers]."""
    if labels is None:
        return np.asarray(np.std(own, axis=0))
    missed = errors(labels, own).reshape(own.shape)
    return np.asarray(np.sqrt(np.mean(missed**2, axis=0)))


def slice_drop(
    labels: Array,
    own: Array,
    other: Array,
    rows: Array,
    *,
    task: Task,
    from_logits: bool,
) -> float | None:
    """What ``other`` loses on some rows, in points; None where nothing counts there.

    Of numbers: how many per cent the mean squared error rises.
    """
    labels, own, other = labels[rows], own[rows], other[rows]
    if task == "regression":
        first, second = (float(np.mean(errors(labels, o) ** 2)) for o in (own, other))
        return rise(first, second)
    right = []
    for outputs in (own, other):
        decided = decisions(outputs, task=task, from_logits=from_logits)
        is_hit, counts = is_right(labels, decided, task=task)
        right.append((is_hit * counts).sum())
    return 100.0 * (right[0] - right[1]) / counts.sum() if counts.any() else None


def slices(
    labels: Array,
    label_names: Sequence[str],
    groups: tuple[tuple[str, ...], Array] | None,
) -> Iterator[Slice]:
    """The rows of each label, then those of each client, where these are known."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        for label in np.unique(labels):
            known = 0 <= label < len(label_names)
            name = label_names[label] if known else str(label)
            yield Slice("label", name, np.flatnonzero(labels == label))
    if groups is not None:
        names, codes = groups
        for code, name in enumerate(names):
            yield Slice("client", name, np.flatnonzero(codes == code))
