"""What a project's privacy costs, worked out before anything is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtrain.models.model import Model
from fedtrain.privacy.plan import PrivacyPlan, Unknown
from fedtrain.privacy.plan_table import plan_row, plan_table
from fedtrain.project.build import planned_model
from fedtrain.project.config import ProjectConfig
from fedtrain.project.integer_mechanism import integer_mechanism, words_of_ring
from fedtrain.project.problems import in_file
from fedtrain.project.run_privacy import meaning
from fedtrain.project.secure_session import session_of, words_of
from fedtrain.project.simulate import config_of

_UNKNOWNS: dict[str, Unknown] = {
    "noise": "noise_multiplier",
    "epsilon": "epsilon",
    "rounds": "num_rounds",
    "batch": "sampling_rate",
}


def plan(
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    solve_for: str | None = None,
) -> dict[str, Any]:
    """The table of a project's plan, or the one row that solves for a number.

    Args:
      file: A ``federation.toml``; the embedded example without one.
      overrides: Such as ``"privacy.target_epsilon=2"``.
      solve_for: ``"noise"``, ``"epsilon"``, ``"rounds"`` or ``"batch"``.

    Returns:
      ``rows`` (each as ``PlanRow.as_dict``), a ``title``, and the ``statement`` that
      says what the epsilons mean.
    """
    config, folder = config_of(file, overrides)
    with in_file(file):
        chosen, model = planned_model(config, folder=folder)
    if solve_for is None:
        shown, rows = chosen, plan_table(chosen)
    else:
        shown = _solved(chosen, solve_for)
        rows = [plan_row(shown, f"solved for {solve_for}")]
    return {
        "title": f"{config.name}: {chosen.num_clients} clients, "
        f"{chosen.num_weights} weights, delta {chosen.delta:g}{_reserved(config)}",
        "rows": [row.as_dict() for row in rows],
        "statement": f"{meaning(chosen)}{_whole_numbers(config, shown, model)}",
    }


def _whole_numbers(config: ProjectConfig, chosen: PrivacyPlan, model: Model) -> str:
    """What secure aggregation and the ring cost; refuses what does not fit."""
    session = session_of(config, chosen.num_clients)
    mechanism = integer_mechanism(config, chosen.calibrated(), model)
    lines = [
        "" if session is None else words_of(session),
        "" if mechanism is None else words_of_ring(mechanism, chosen.clipping_norm),
    ]
    return "".join(f"\n{line}" for line in lines if line)


def _reserved(config: ProjectConfig) -> str:
    tuning = config.all_rounds - config.rounds.num_rounds
    return f", {tuning} of the rounds for fine-tuning" if tuning else ""


def _solved(plan: PrivacyPlan, solve_for: str) -> PrivacyPlan:
    if solve_for == "noise":
        return plan.solved("noise_multiplier")
    return plan.calibrated().solved(_UNKNOWNS[solve_for])
