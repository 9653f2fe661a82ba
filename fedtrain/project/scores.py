"""What scores the model between rounds, and what of it may end a run."""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.project.build import Project
from fedtrain.project.crossing import nest_sha256
from fedtrain.project.held_out import PREFIX, HeldOut
from fedtrain.project.phases import shown_weights
from fedtrain.rounds.checks import Evaluate
from fedtrain.rounds.client_evaluation import Scores, simulated_scores
from fedtrain.rounds.early_stop import EarlyStop
from fedtrain.rounds.round import Round, ServerState

_RANKING = ("roc_auc", "pr_auc", "ks", "brier")


@runtime_checkable
class AsksForScores(Protocol):
    """A runtime whose clients score weights on rows that are not here."""

    def client_scores(
        self, held_out: HeldOut, round_: Round, state: ServerState, seed: seeds.Seed
    ) -> Scores:
        """The sum of the clients' scores of ``state``."""
        ...


def evaluate_of(project: Project, charges: RunPrivacy | None) -> Evaluate | None:
    """Scores on public test rows and on rows that clients keep back; None if neither.

    Args:
      project: The run.
      charges: Pays for what private rows tell, before they are looked at.
    """
    if not project.shows_test and project.held_out is None:
        return None

    def evaluate(state: ServerState) -> Mapping[str, float]:
        scores: dict[str, float] = {}
        if project.shows_test:
            weights = shown_weights(project, state)
            found = project.evaluator.evaluate(weights, project.split.test)
            scores |= {f"test_{name}": value for name, value in found.items()}
        if project.held_out is not None:
            scores |= _held_out_scores(project, project.held_out, state, charges)
        return scores

    return evaluate


def early_stop_of(project: Project) -> EarlyStop | None:
    """What ``[stop]`` watches; None without the section.

    Raises:
      ConfigError: If no round of this run reports such a score.
    """
    section = project.config.stop
    if section is None:
        return None
    known = _names(project)
    if section.metric not in known:
        raise ConfigError(
            f"stop.metric is {section.metric!r}, but the rounds of this run report "
            f"{', '.join(known) or 'no scores'}. Name one of those; "
            "evaluation.held_out_fraction or test rows add more."
        )
    return EarlyStop(
        metric=section.metric,
        patience=section.patience,
        min_delta=section.min_delta,
        goal=section.goal,
    )


def _names(project: Project) -> list[str]:
    own = project.evaluator.metrics
    names = list(own) if project.round_.reports_metrics else []
    names += project.round_.reported(project.round_.init(project.starting_weights()))
    if project.shows_test and project.split.test.num_examples:
        names += [f"test_{name}" for name in (*own, *_RANKING)]
    if project.held_out is not None:
        names += [f"{PREFIX}{name}" for name in project.held_out.evaluation.metrics]
    return names


def _held_out_scores(
    project: Project,
    held_out: HeldOut,
    state: ServerState,
    charges: RunPrivacy | None,
) -> dict[str, float]:
    evaluation, number = held_out.evaluation, int(state.round_number)
    if held_out.cost is not None and charges is not None:
        inputs = f"held-out scores {number} {nest_sha256(state)}"
        digest = hashlib.sha256(inputs.encode()).hexdigest()
        name = f"scores after {number} rounds"
        charges.charge_release(
            name, held_out.cost, query=evaluation.asked, input_hash=digest
        )
    seed = seeds.derive(project.seed, "evaluation", number)
    runtime: Any = project.runtime
    if isinstance(runtime, AsksForScores):
        total = runtime.client_scores(held_out, project.round_, state, seed)
    else:
        total = simulated_scores(evaluation, state.weights, held_out.rows, seed)
    return {f"{PREFIX}{name}": v for name, v in evaluation.means(total).items()}
