"""How good outputs are, whole and by slice, whatever computed them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fedtrain.core.errors import ConfigError
from fedtrain.data.examples import Array
from fedtrain.data.sets.split import Task
from fedtrain.rounds.evaluation import binary_scores


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
    """The label that each row's outputs stand for."""
    if task == "regression":
        raise ConfigError(
            "Exports are judged by their labels; a model that predicts a number has "
            "none, and cannot be exported yet."
        )
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
    """Accuracy, in [0, 1]; of two classes also the area under the ROC curve."""
    decided = decisions(outputs, task=task, from_logits=from_logits)
    right, counts = is_right(labels, decided, task=task)
    found = {"accuracy": float(right[counts].mean())}
    if task == "classification":
        ranking = binary_scores(labels, outputs, from_logits=from_logits)
        found |= {name: ranking[name] for name in ("roc_auc",) if name in ranking}
    return found


def slices(
    labels: Array,
    label_names: Sequence[str],
    groups: tuple[tuple[str, ...], Array] | None,
) -> Iterator[Slice]:
    """The rows of each label, then those of each client, where these are known."""
    if labels.ndim == 1:
        for label in np.unique(labels):
            known = 0 <= label < len(label_names)
            name = label_names[label] if known else str(label)
            yield Slice("label", name, np.flatnonzero(labels == label))
    if groups is not None:
        names, codes = groups
        for code, name in enumerate(names):
            yield Slice("client", name, np.flatnonzero(codes == code))
