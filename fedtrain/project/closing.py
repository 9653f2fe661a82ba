"""The end of a run: what it reached, beside other ways to train on the same rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedtrain.core import seeds
from fedtrain.models.model import ModelWeights
from fedtrain.project.build import Project
from fedtrain.project.build_round import plain_round, plain_work
from fedtrain.project.comparison import trained_alone
from fedtrain.project.config import ProjectConfig
from fedtrain.rounds.train import TrainingRun, train

WITH_PRIVACY = "federated, with privacy"
WITHOUT_PRIVACY = "federated, without privacy"
ALONE = "each client alone, without privacy"

Told = Callable[[str], None]


def main_metric(scores: Mapping[str, float]) -> str:
    """The score that tables compare."""
    names = ("accuracy", "roc_auc", *scores)
    return next(name for name in names if name in scores)


def comparison(
    project: Project, scores: Mapping[str, float], *, told: Told
) -> list[dict[str, Any]]:
    """The run beside the same run without privacy, and each client by itself.

    Exact figures about the clients' rows: on public data only.

    Args:
      project: The run.
      scores: Its final weights' on the test rows.
      told: Hears what is being trained.
    """
    metric = main_metric(scores)
    evaluator = project.evaluator
    private = project.config.privacy is not None
    rate = project.config.evaluation.baseline_learning_rate
    # Another learning rate is another difference than privacy: the table says so.
    own = f", learning rate {rate:g}" if rate else ""
    rows = [_row(WITH_PRIVACY if private else WITHOUT_PRIVACY, [scores[metric]])]
    if private:
        told("for comparison: the same rounds without privacy")
        plain = evaluator.evaluate(_without_privacy(project), project.split.test)
        rows.append(_row(WITHOUT_PRIVACY + own, [plain[metric]]))
    told("for comparison: each client alone")
    alone = [
        evaluator.evaluate(weights, project.split.test)[metric]
        for weights in _alone(project).values()
    ]
    return [*rows, _row(ALONE + own, alone)]


def _without_privacy(project: Project) -> ModelWeights:
    round_ = plain_round(_baseline(project.config), project.model)
    training = TrainingRun(
        round_=round_,
        dataset=project.split.train,
        sampler=project.sampler,
        runtime=project.runtime,
        num_rounds=project.config.rounds.num_rounds,
        seed=project.seed,
    )
    return train(training, round_.init(project.starting_weights())).state.weights


def _alone(project: Project) -> dict[str, ModelWeights]:
    return trained_alone(
        plain_work(_baseline(project.config), project.model),
        project.split.train,
        project.starting_weights(),
        runtime=project.runtime,
        num_rounds=project.config.rounds.num_rounds,
        seed=seeds.derive(project.seed, "alone"),
    )


def _baseline(config: ProjectConfig) -> ProjectConfig:
    rate = config.evaluation.baseline_learning_rate
    if rate is None:
        return config
    section = "server" if config.rounds.algorithm == "fed_sgd" else "client"
    changed = getattr(config, section).model_copy(update={"learning_rate": rate})
    return config.model_copy(update={section: changed})


def _row(name: str, values: list[float]) -> dict[str, Any]:
    return {
        "name": name,
        "value": float(np.mean(values)),
        "low": float(np.min(values)) if len(values) > 1 else None,
        "high": float(np.max(values)) if len(values) > 1 else None,
    }
