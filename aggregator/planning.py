"""From a project to the plan that its partners approve."""

import hashlib
import json
from pathlib import Path
from typing import Any

import fedtrain
from fedtrain.core.errors import ConfigError
from fedtrain.data.tabular import schema_of
from fedtrain.privacy import accounting
from fedtrain.project.build import Project
from fedtrain.project.config import ProjectConfig
from fedtrain.project.crossing import (
    Crossing,
    contribution_specs,
    crossing_of,
    leaves,
    specs,
)
from fedtrain.project.deployed import least_reports, service_of, stated_mechanism
from fedtrain.project.held_out import HeldOut
from fedtrain.project.secure_session import partners_sessions
from fedtrain.wire.plan import Plan, PlanPrivacy

_SECTIONS = ("model", "rounds", "client", "server", "privacy", "service")
# Of [service], what a partner's installation needs to build the same round.
_SHARED = ("clients", "rows_per_client", "repeats_simulation")


_PROTECTED = {
    "none": "exact, not protected",
    "local": "with noise added here",
    "distributed": "with a share of the noise added here, behind masks",
    "central": "clipped, WITHOUT noise: the operator adds it to the sum",
}


def plan_for(project: Project, *, operator: str) -> Plan:
    """The plan of a served run; the same project gives the same bytes.

    Args:
      project: From ``deployed``.
      operator: Who runs the aggregator, for people.

    Raises:
      ConfigError: If the run spends more than any epsilon.
    """
    config, service = project.config, service_of(project.config)
    held_out = project.held_out
    schema = schema_of(project.split.train)
    crossing = crossing_of(project.round_, project.starting_weights())
    goal = service.report_goal or _most_reports(config)
    task: Any = {
        "sections": _sections(project),
        "schema": schema.as_dict() if schema else {},
        "model_sha256": _model_sha256(project),
    }
    return Plan(
        name=config.name,
        operator=operator,
        software=f"fedtrain {fedtrain.__version__}",
        task=task,
        broadcast=specs(crossing.broadcast),
        contribution=contribution_specs(project.round_, crossing.contribution),
        evaluation=specs(held_out.evaluation.zeros()) if held_out else (),
        num_rounds=config.rounds.num_rounds,
        report_goal=goal,
        least_reports=least_reports(config),
        deadline_s=service.deadline_s,
        privacy=_privacy(project),
        simulation_seed=config.seed if service.repeats_simulation else None,
        secure_aggregation=config.rounds.secure_aggregation,
        leaves=_leaving(project, crossing),
    )


def _sections(project: Project) -> dict[str, Any]:
    """What defines the round, and nothing of the operator's own machine."""
    config, plan = project.config, project.plan
    full = json.loads(config.model_dump_json(exclude_none=True))
    sections = {name: full[name] for name in _SECTIONS if name in full}
    if plan is not None:
        # Solved once, here: a partner adds the very noise that it approves.
        sections["privacy"].pop("target_epsilon", None)
        sections["privacy"]["noise_multiplier"] = plan.noise_multiplier
    if project.held_out is not None:
        sections["evaluation"] = _evaluation(project.held_out, config)
    sections["service"] = {
        **{key: full["service"][key] for key in _SHARED},
        "further_attempts": config.further_attempts,
    }
    if config.model.path is not None:
        sections["model"]["path"] = Path(config.model.path).name
    repeats = service_of(config).repeats_simulation
    entity = {"entity": config.data.entity} if config.data.entity else {}
    return {
        "name": config.name,
        "seed": config.seed if repeats else 0,
        "data": {"path": "rows", "schema_path": "the plan's", **entity},
        **sections,
    }


def _evaluation(held_out: HeldOut, config: ProjectConfig) -> dict[str, Any]:
    section, query = config.evaluation, held_out.evaluation.query
    noise = {} if query is None else {"noise_multiplier": query.noise_multiplier}
    kept = {"held_out_fraction": section.held_out_fraction}
    return {"every": section.every, **kept, **noise}


def _model_sha256(project: Project) -> str | None:
    path = project.config.model.path
    if path is None:
        return None
    return hashlib.sha256((project.folder / path).read_bytes()).hexdigest()


def _privacy(project: Project) -> PlanPrivacy | None:
    plan = project.plan
    if plan is None:
        return None
    epsilon = plan.epsilon()
    if epsilon == float("inf"):
        raise ConfigError(
            "The plan spends an unbounded epsilon: nothing would be protected. Raise "
            "privacy.noise_multiplier or lower rounds.num_rounds; `fedtrain plan` "
            "shows what fits."
        )
    claimed = "row sampling inside each client, hidden from the aggregator"
    return PlanPrivacy(
        unit=plan.unit,
        trust=plan.trust,
        neighboring_relation=plan.neighboring_relation,
        delta=plan.delta,
        epsilon=epsilon,
        further_attempts=plan.further_attempts,
        mechanism=stated_mechanism(project),
        accountant=accounting.ACCOUNTANT,
        amplification=claimed if plan.amplifies else None,
    )


def _leaving(project: Project, crossing: Crossing) -> tuple[str, ...]:
    update = sum(array.size for array in leaves(crossing.broadcast.weights))
    protected = _PROTECTED[project.plan.trust if project.plan else "none"]
    lines = [
        f"in each round: {update} numbers, the change of the model's weights, "
        f"{protected}",
        _shortened(project.config),
        _masked(project.config),
        "" if project.plan else "your number of rows, as the weight of the mean",
        "exact sums of loss and metrics"
        if leaves(crossing.contribution.metrics)
        else "",
        _of_evaluations(project),
        "that you take part, when, the version of your software, and length and hash "
        "of your audit log",
    ]
    return tuple(line for line in lines if line)


def _most_reports(config: ProjectConfig) -> int:
    """Of all clients, or of those of the largest region."""
    sizes = [len(session.members) for session in partners_sessions(config)]
    return max(sizes, default=len(service_of(config).clients))


def _masked(config: ProjectConfig) -> str:
    sessions = [session.parameters for session in partners_sessions(config)]
    if not sessions:
        return ""
    colluding = sessions[0].num_colluding
    if len(sessions) == 1:
        return (
            f"keys and shares of keys: {sessions[0].threshold} of "
            f"{sessions[0].num_clients} partners open the sum; {colluding} of them may "
            "work with the operator and see no more than the sum of the others"
        )
    least = min(session.threshold for session in sessions)
    return (
        f"keys and shares of keys: in each of {len(sessions)} regions at least {least} "
        f"partners open their sum to its aggregator; {colluding} of them may work with "
        "it and see no more than the sum of the others"
    )


def _shortened(config: ProjectConfig) -> str:
    kind, fraction = config.rounds.update_compression, config.rounds.kept_fraction
    if kind is None:
        return ""
    if kind == "top_k":
        return (
            f"of those only the largest {100 * (fraction or 1):.3g} % of each array; "
            "the rest stays with you and is added to your next change"
        )
    return f"each of those rounded at random to {kind.removeprefix('int')} bits"


def _of_evaluations(project: Project) -> str:
    held_out, section = project.held_out, project.config.evaluation
    if held_out is None:
        return ""
    what = "exact sums of loss and metrics"
    if held_out.evaluation.query is not None:
        what = "noised counts of right and wrong answers (their cost is in epsilon)"
    every = "each round" if section.every == 1 else f"every {section.every} rounds"
    share = f"{100 * (section.held_out_fraction or 0):.3g} %"
    return (
        f"after {every}: {what}, on about {share} of your rows, which are kept back "
        "from training"
    )
