"""The partner's policy: what may leave its machine, whoever asks, and for what.

It is a file of the partner's own, ``policy.toml``. It is read again before each answer
leaves, so taking an approval out of it takes effect at once. Nothing that comes over
the wire writes to it.
"""

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtrain.core.errors import ConfigError, PolicyError
from fedtrain.core.files import write_atomically
from fedtrain.core.mechanism import Trust, Unit
from fedtrain.project.toml_text import toml_text
from fedtrain.wire.plan import Plan, Sha256

Count = Annotated[int, Field(ge=1)]
NO_BOUND = math.inf


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known on this machine about what a plan would meet.

    Attributes:
      num_examples: Rows; None where they were not counted yet.
      is_demo: Whether the operator made this identity's keys, as demos do.
    """

    num_examples: int | None = None
    is_demo: bool = False


class Policy(BaseModel):
    """The clauses of the file; all but the approvals have to be there.

    Attributes:
      max_epsilon: The most that all plans together may spend of this data set, in the
        terms of the plan that asks; ``inf`` allows plans that promise nothing.
      max_delta: The largest delta at which an epsilon counts.
      allowed_units: Whose privacy a plan must speak of, if it promises any.
      allowed_trust: Who may add the noise; ``"central"`` shows the operator exact
        contributions.
      min_cohort: Fewest contributions that a round is closed with.
      min_rows: Fewest rows that may stand behind an answer.
      require_secure_aggregation: Whether only sums over partners may be seen.
      exact_metrics_may_leave: Whether evaluation rounds may be answered whose metrics
        carry no noise; those with noise spend epsilon, as training does.
      approved_plans: SHA-256 of each plan that may be carried out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_epsilon: Annotated[float, Field(gt=0)]
    max_delta: Annotated[float, Field(gt=0, lt=1)]
    allowed_units: list[Unit]
    allowed_trust: list[Trust]
    min_cohort: Count
    min_rows: Count
    require_secure_aggregation: bool
    exact_metrics_may_leave: bool
    approved_plans: list[Sha256] = Field(default_factory=list)

    def approves(self, plan: Plan) -> bool:
        """Whether the partner has approved exactly this plan."""
        return plan.sha256 in self.approved_plans

    def violations(self, plan: Plan, facts: Facts) -> list[str]:
        """The clauses that forbid ``plan``, in words; none if it is allowed.

        Whether it is approved is another question.
        """
        return [*self._against_privacy(plan), *self._against_setting(plan, facts)]

    def check(self, plan: Plan, facts: Facts) -> None:
        """Raises PolicyError with the clauses that forbid ``plan``."""
        found = self.violations(plan, facts)
        if found:
            raise PolicyError(
                f"Your policy does not allow the plan {plan.name}:\n"
                + "\n".join(f"  {clause}" for clause in found)
                + "\nNothing has left this machine. Ask the operator for another plan, "
                "or change policy.toml."
            )

    def approving(self, plan: Plan) -> "Policy":
        """This policy with the plan's hash among those approved."""
        approved = {*self.approved_plans, plan.sha256}
        return self.model_copy(update={"approved_plans": sorted(approved)})

    def _against_privacy(self, plan: Plan) -> Iterator[str]:
        promise = plan.privacy
        if promise is None or plan.simulation_seed is not None:
            if self.max_epsilon < NO_BOUND:
                yield (
                    f"max_epsilon = {self.max_epsilon:g}, and the plan promises no "
                    "privacy: it has no noise, or noise that whoever has the plan can "
                    "subtract. Only max_epsilon = inf allows that."
                )
            return
        if promise.epsilon > self.max_epsilon:
            yield (
                f"max_epsilon = {self.max_epsilon:g}, and the plan alone spends "
                f"{promise.epsilon:g} (unit {promise.unit}, delta {promise.delta:g})."
            )
        if promise.delta > self.max_delta:
            yield (
                f"max_delta = {self.max_delta:g}, and the plan's is {promise.delta:g}."
            )
        if promise.unit not in self.allowed_units:
            yield _not_among("allowed_units", self.allowed_units, promise.unit)
        if promise.trust not in self.allowed_trust:
            yield _not_among("allowed_trust", self.allowed_trust, promise.trust)

    def _against_setting(self, plan: Plan, facts: Facts) -> Iterator[str]:
        rows = facts.num_examples
        if plan.least_reports < self.min_cohort:
            yield (
                f"min_cohort = {self.min_cohort}, and the plan closes a round with "
                f"{plan.least_reports}."
            )
        if rows is not None and rows < self.min_rows:
            yield f"min_rows = {self.min_rows}, and the data has {rows}."
        if self.require_secure_aggregation and not plan.secure_aggregation:
            yield (
                "require_secure_aggregation = true, and the plan shows the operator "
                "each contribution by itself."
            )
        if _evaluates_exactly(plan) and not self.exact_metrics_may_leave:
            yield (
                "exact_metrics_may_leave = false, and the plan has evaluation rounds, "
                "whose metrics carry no noise."
            )
        if plan.secure_aggregation and facts.is_demo:
            yield (
                "The keys of this client were made by the operator, for a demo: secure "
                "aggregation would protect nothing from it."
            )


def policy_for(
    plan: Plan,
    *,
    max_epsilon: float | None = None,
    allow_central: bool = False,
    allow_exact_metrics: bool = False,
) -> Policy:
    """A first policy, which allows just what ``plan`` asks and promises.

    Args:
      plan: What the partner is about to approve.
      max_epsilon: The partner's bound; if not given the plan's own figure, rounded up
        to hundredths: room for its rounds and the further attempts that it counts. A
        plan that promises nothing needs ``inf``, said by the partner.
      allow_central: Whether the operator may see exact contributions.
      allow_exact_metrics: Whether metrics without noise may leave.
    """
    promise = plan.privacy
    trust: list[Trust] = ["local", "distributed"]
    return Policy(
        max_epsilon=max_epsilon or (_rounded_up(promise.epsilon) if promise else 1.0),
        max_delta=promise.delta if promise else 1e-6,
        allowed_units=[promise.unit] if promise else ["example", "entity", "client"],
        allowed_trust=[*trust, "central"] if allow_central else trust,
        min_cohort=plan.least_reports,
        min_rows=1,
        require_secure_aggregation=plan.secure_aggregation,
        exact_metrics_may_leave=allow_exact_metrics,
    )


def read_policy(path: Path) -> Policy | None:
    """The policy in the file at ``path``; None where there is none yet.

    Raises:
      ConfigError: Naming the key that is missing, unknown or out of range.
    """
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
            for found in error.errors(include_url=False)
        )
        raise ConfigError(
            f"{path}: {problems}. See `fedtrain-client policy`."
        ) from None


def write_policy(path: Path, policy: Policy) -> None:
    """Writes ``policy`` with a comment beside each clause, in one step."""
    lines = [_HEAD]
    for name, value in policy.model_dump().items():
        lines += [f"\n# {_COMMENTS[name]}", toml_text({name: value}).strip()]
    write_atomically(path, "\n".join(lines) + "\n")


def _evaluates_exactly(plan: Plan) -> bool:
    """Whether evaluation rounds send what no noise protects from the operator."""
    if not plan.evaluation:
        return False
    section = plan.task["sections"].get("evaluation")
    is_noised = isinstance(section, dict) and "noise_multiplier" in section
    return plan.privacy is None or plan.simulation_seed is not None or not is_noised


def _rounded_up(epsilon: float) -> float:
    # Another version of the accountant may differ in the last digits.
    return math.ceil(100.0 * epsilon) / 100.0


def _not_among(name: str, allowed: list[Any], found: str) -> str:
    clause = toml_text({name: allowed}).strip()
    return f"{clause}, and the plan's is {found!r}."


_HEAD = """\
# What may leave this machine. Yours alone: no plan and no operator can change it.
# It is read again before each answer leaves."""
_COMMENTS = {
    "max_epsilon": "All plans together, for this data set. inf: no privacy is needed.",
    "max_delta": "The largest delta at which an epsilon counts.",
    "allowed_units": "Whose privacy: example (a row), entity (a customer), client.",
    "allowed_trust": "Who adds noise; central shows the operator exact contributions.",
    "min_cohort": "Fewest contributions that a round is closed with.",
    "min_rows": "Fewest rows that may stand behind an answer.",
    "require_secure_aggregation": "Whether only sums over partners may be seen.",
    "exact_metrics_may_leave": "Evaluation rounds may send metrics without noise.",
    "approved_plans": "SHA-256 of approved plans; take one out to withdraw approval.",
}
