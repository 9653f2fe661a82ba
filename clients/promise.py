"""What a plan promises in words, held against what its sections make this machine do.

Only the sections decide which noise is added; the statement beside them is what a
person approves and what the policy reads. Both come from the operator.
"""

import math
from collections.abc import Iterator

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy import events
from fedtrain.privacy.account import copies_of
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.project.build import Project
from fedtrain.project.deployed import least_reports, stated_mechanism
from fedtrain.wire.plan import Plan, PlanPrivacy

_TERMS = ("unit", "trust", "neighboring_relation", "delta", "further_attempts")
# Another version of the accountant may differ in the last digits.
_MORE = 1e-3


def check_promise(plan: Plan, project: Project) -> None:
    """Refuses a plan whose statement is not what ``project`` does, or spends less.

    Args:
      plan: What the partner approved.
      project: What this installation has built from the plan's sections.

    Raises:
      PrivacyError: With each difference.
    """
    found = [*_against_setting(plan, project), *_against_privacy(plan, project)]
    if found:
        raise PrivacyError(
            f"The plan {plan.name} states what its sections do not do:\n"
            + "\n".join(f"  {difference}" for difference in found)
            + "\nNothing has left this machine. Tell the operator, and take the "
            f"approval of {plan.sha256} out of policy.toml."
        )


def _against_setting(plan: Plan, project: Project) -> Iterator[str]:
    config = project.config
    repeats = config.service is not None and config.service.repeats_simulation
    if config.rounds.num_rounds != plan.num_rounds:
        yield (
            f"num_rounds = {plan.num_rounds}, and the sections have "
            f"{config.rounds.num_rounds}."
        )
    if repeats != (plan.simulation_seed is not None):
        yield (
            f"simulation_seed = {plan.simulation_seed}, and the sections say "
            f"repeats_simulation = {str(repeats).lower()}: whether the operator can "
            "subtract the noise must be the same in both."
        )
    if config.rounds.secure_aggregation != plan.secure_aggregation:
        stated = "" if plan.secure_aggregation else "no "
        yield f"{stated}secure aggregation, and the sections say otherwise."
    elif plan.secure_aggregation and plan.least_reports != least_reports(config):
        yield (
            f"least_reports = {plan.least_reports}, and the sections open the sum of "
            f"{least_reports(config)}."
        )
    if bool(plan.evaluation) != (project.held_out is not None):
        stated = "" if plan.evaluation else "no "
        yield f"{stated}evaluation rounds, and the sections say otherwise."


def _against_privacy(plan: Plan, project: Project) -> Iterator[str]:
    stated, own = plan.privacy, project.plan
    if stated is not None and own is not None:
        yield from _against_guarantee(stated, own, project)
    elif stated is not None:
        yield f"epsilon = {stated.epsilon:g}, and the sections add no noise at all."
    elif own is not None:
        yield "no guarantee, and the sections have [privacy]."


def _against_guarantee(
    stated: PlanPrivacy, own: PrivacyPlan, project: Project
) -> Iterator[str]:
    for name in _TERMS:
        said, done = getattr(stated, name), getattr(own, name)
        if said != done:
            yield f"{name} = {said!r}, and the sections have {done!r}."
    mechanism = stated_mechanism(project)
    for name in sorted({*stated.mechanism, *mechanism}):
        said, done = stated.mechanism.get(name), mechanism.get(name)
        if said != done:
            yield f"mechanism.{name} = {said!r}, and this machine's is {done!r}."
    copies = copies_of(own.unit, own.trust, own.max_clients_per_entity)
    done = events.composed([one.dp_event for one in project.round_.mechanisms])
    counted = events.counted(own.round_event())
    if events.counted(events.times(done, copies)) != counted:
        yield f"{events.to_json(counted)} in a round, and the mechanism is {done!r}."
    epsilon = own.epsilon()
    if not math.isfinite(epsilon) or epsilon > stated.epsilon * (1.0 + _MORE):
        yield (
            f"epsilon = {stated.epsilon:g}, and the mechanism spends {epsilon:.6g} "
            f"(unit {own.unit}, delta {own.delta:g})."
        )
