"""Rows that clients keep back, and what their evaluation of the model may send."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples
from fedtrain.data.held_out import Mask, is_held_out, only
from fedtrain.privacy import events
from fedtrain.privacy.paid_counts import CountsQuery
from fedtrain.project.config import ProjectConfig
from fedtrain.project.paid_evaluation import evaluation_cost, evaluation_noise
from fedtrain.rounds.client_evaluation import NOISED_METRIC, ClientEvaluation
from fedtrain.rounds.evaluation import Evaluator

PREFIX = "held_out_"


class HeldOut(NamedTuple):
    """Evaluation at the clients.

    Attributes:
      rows: What each client keeps back. Of a population that is only declared, as with
        partners, they say who takes part and nothing else.
      evaluation: What a client makes of its own rows.
      is_kept: Which of any rows are kept back.
      cost: What one unit pays for one evaluation; None where nothing is to be paid.
    """

    rows: FederatedDataset
    evaluation: ClientEvaluation
    is_kept: Callable[[Examples], Mask]
    cost: events.Counts | None


def held_out_of(
    config: ProjectConfig, dataset: FederatedDataset, evaluator: Evaluator
) -> tuple[FederatedDataset, HeldOut | None]:
    """The rows to train on, and the evaluation on the others; None if none is wanted.

    Raises:
      PrivacyError: If the plan does not pay for what private rows would tell.
      ConfigError: If the model counts nothing that noise could hide.
    """
    fraction = config.evaluation.held_out_fraction
    if fraction is None:
        return dataset, None
    noise = evaluation_noise(config)
    if noise is None and config.privacy is not None and dataset.sensitivity != "public":
        raise PrivacyError(
            "evaluation.held_out_fraction would send exact scores of private rows, "
            "which [privacy] does not pay for. Give evaluation.epsilon, the cost of "
            'all evaluations together (privacy.trust = "local"), or leave '
            "held_out_fraction out and use public rows (data.test_path)."
        )
    is_kept = partial(is_held_out, fraction=fraction, salt=config.name)
    train = rows = dataset
    if not dataset.info.get("declared"):  # else one made-up row, many times
        kept = is_kept(dataset.examples)
        train, rows = only(dataset, ~kept), only(dataset, kept)
    evaluation = _evaluation(config, evaluator, noise, labels=dataset.examples.labels)
    cost = None if noise is None else evaluation_cost(config, noise)
    return train, HeldOut(rows, evaluation, is_kept, cost)


def _evaluation(
    config: ProjectConfig, evaluator: Evaluator, noise: float | None, *, labels: Any
) -> ClientEvaluation:
    privacy = config.privacy
    if noise is None or privacy is None:
        return ClientEvaluation(evaluator=evaluator, metrics=evaluator.metrics)
    if NOISED_METRIC not in evaluator.metrics:
        raise ConfigError(
            f"Under [privacy] clients count right and wrong answers ({NOISED_METRIC}), "
            f"but the model has only {', '.join(evaluator.metrics)}. Leave "
            "evaluation.held_out_fraction out and use public rows (data.test_path)."
        )
    by_entity = privacy.unit == "entity"
    most = int(np.prod(labels.shape[1:], dtype=np.int64))
    query = CountsQuery(
        name="held-out scores",
        squared_norm=most**2,
        rows_per_unit=(privacy.max_rows_per_entity or 1) if by_entity else 1,
        noise_multiplier=noise,
    )
    return ClientEvaluation(
        evaluator=evaluator, metrics=(NOISED_METRIC,), query=query, by_entity=by_entity
    )
