"""What a privacy plan costs, as the rows of a table, before anything is trained."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from fedtrain.privacy.plan import PrivacyPlan

EPSILONS = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One choice of the four numbers that trade against each other.

    Attributes:
      note: What was changed or solved for.
      noise_multiplier: Noise on the sum over the clipping norm.
      epsilon: PLD headline at the plan's delta.
      rdp_epsilon: The cross-check; None where there is none.
      num_rounds: Rounds of the whole run.
      expected_count: Expected clients in a cohort, or units in a batch.
      sampling_rate: Of the units, where they are Poisson-sampled; else 1.
      signal_to_noise: Bound on the length of the sum over that of its noise.
    """

    note: str
    noise_multiplier: float
    epsilon: float
    rdp_epsilon: float | None
    num_rounds: int
    expected_count: float
    sampling_rate: float
    signal_to_noise: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def plan_row(plan: PrivacyPlan, note: str) -> PlanRow:
    """The row of a plan whose noise multiplier is known."""
    plan = plan.calibrated()
    return PlanRow(
        note=note,
        noise_multiplier=plan.noise_multiplier or 0.0,
        epsilon=plan.epsilon(),
        rdp_epsilon=plan.rdp_epsilon(),
        num_rounds=plan.num_rounds,
        expected_count=plan.expected_count,
        sampling_rate=plan.sampling_rate,
        signal_to_noise=plan.signal_to_noise(),
    )


def plan_table(plan: PrivacyPlan) -> list[PlanRow]:
    """The plan itself, then the noise that other epsilons and lengths would need."""
    chosen = plan.calibrated()
    rows = [plan_row(chosen, "this plan")]
    rows += [
        plan_row(
            replace(chosen, target_epsilon=wish).solved("noise_multiplier"),
            f"noise for epsilon {wish:g}",
        )
        for wish in EPSILONS
    ]
    wish = chosen.target_epsilon or chosen.epsilon()
    budgeted = replace(chosen, target_epsilon=wish)
    for note, rounds in (
        ("half the rounds", max(chosen.num_rounds // 2, 1)),
        ("twice the rounds", 2 * chosen.num_rounds),
    ):
        changed = budgeted.with_rounds(rounds).solved("noise_multiplier")
        rows.append(plan_row(changed, f"{note}, same epsilon"))
    return rows
