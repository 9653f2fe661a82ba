"""The privacy plan: whose privacy, against whom, how much, and what it costs.

No figure that decides what the promise means has a default: unit, trust, neighbouring
relation, delta and sampling are stated by whoever makes the plan.

Source: Ponomareva et al. (2023), How to DP-fy ML (what a statement must contain).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.core.mechanism import Trust, Unit
from fedtrain.privacy import accounting, events
from fedtrain.privacy.calibration import (
    Target,
    largest_sampling_rate,
    least_noise_multiplier,
    most_rounds,
)

NeighboringRelation = Literal["add_or_remove_one", "replace_one", "replace_special"]
Sampling = Literal["poisson", "uniform", "full", "cyclic"]
Unknown = Literal["noise_multiplier", "epsilon", "num_rounds", "sampling_rate"]

FEWEST_CLIENTS = 1000
_SAMPLINGS = {
    "client": ("cyclic", "full", "poisson", "uniform"),
    "example": ("full", "poisson"),
    "entity": ("full", "poisson"),
}


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What a run promises, and the numbers that the promise rests on.

    Attributes:
      unit: Whose privacy: ``"example"``, ``"entity"`` or ``"client"``.
      trust: Who adds the noise: ``"local"``, ``"distributed"`` or ``"central"``.
      neighboring_relation: What two neighbouring data sets differ in.
      delta: Below one over ``num_units``.
      sampling: How the units of one noised sum are drawn: clients into a cohort (unit
        client), or rows or entities into a batch.
      num_units: Units in the data: rows, entities or clients.
      num_clients: Clients in the population.
      num_rounds: Rounds of the whole run.
      expected_count: Expected units in one noised sum: a public constant.
      clipping_norm: L2 bound on one unit's effect on a sum.
      noise_multiplier: Noise on the sum over ``clipping_norm``; None to calibrate it.
      target_epsilon: The budget at which a run stops; None for no budget.
      sampling_rate: Poisson sampling's rate; 1 for others.
      local_steps: Noised steps that a client takes in a round (trust local).
      max_participations: Most rounds one client takes part in; None for all.
      max_clients_per_entity: Clients at which one entity (a customer) may have rows.
      cohort_is_hidden: Whether only a trusted aggregator knows a round's clients.
      accept_weak_privacy: Allows unit client with fewer than 1,000 clients.
      num_weights: For the bound on signal to noise; None leaves that out.
      reserved: Noise multipliers of Gaussian releases besides the rounds, such as
        scores at the export: ``event`` counts them, so a budget keeps room for them.
      num_in_sum: Clients whose noise one sum may hold (trust distributed).
      num_honest: Of these, how many are counted on (trust distributed).
      further_attempts: Attempts at rounds that may be repeated, with noise of their
        own: ``event`` counts them besides the rounds. Those at evaluations are in
        ``reserved``.
    """

    unit: Unit
    trust: Trust
    neighboring_relation: NeighboringRelation
    delta: float
    sampling: Sampling
    num_units: int
    num_clients: int
    num_rounds: int
    expected_count: float
    clipping_norm: float
    noise_multiplier: float | None = None
    target_epsilon: float | None = None
    sampling_rate: float = 1.0
    local_steps: int = 1
    max_participations: int | None = None
    max_clients_per_entity: int = 1
    cohort_is_hidden: bool = False
    accept_weak_privacy: bool = False
    num_weights: int | None = None
    reserved: tuple[float, ...] = ()
    num_in_sum: int | None = None
    num_honest: int | None = None
    further_attempts: int = 0

    def __post_init__(self) -> None:
        """Refuses what is out of range, then what no mechanism here can promise."""
        _check_ranges(self)
        _check_noise(self)
        _check_combination(self)
        if self.unit == "client" and self.num_clients < FEWEST_CLIENTS:
            _check_weak_privacy(self)

    @property
    def participations(self) -> int:
        """The most rounds one client takes part in."""
        return min(self.max_participations or self.num_rounds, self.num_rounds)

    @property
    def counted_rounds(self) -> int:
        """The most attempts at rounds that ``event`` counts for one unit."""
        # Sampled in secret, a client may be in any round; seen, only where it is.
        sampled_clients = self.amplifies and self.unit == "client"
        rounds = self.num_rounds if sampled_clients else self.participations
        return rounds + self.further_attempts

    @property
    def amplifies(self) -> bool:
        """Whether the event claims amplification by sampling."""
        drawn_in_secret = self.unit != "client" or self.cohort_is_hidden
        return self.sampling == "poisson" and self.sampling_rate < 1 and drawn_in_secret

    @property
    def noise_surplus(self) -> float:
        """Variance on a sum in which everyone's noise is, over what is needed."""
        return (self.num_in_sum or 1) / (self.num_honest or 1)

    def round_event(self) -> Any:
        """What one unit of a client suffers in a round in which that client is."""
        noise = self._noise_multiplier()
        rate = self.sampling_rate if self.amplifies else 1.0
        if self.trust != "local" and self.unit == "entity":
            return events.mixture(noise, rate, self.max_clients_per_entity)
        once = events.sampled(rate, events.gaussian(noise))
        if self.unit == "client":
            return once  # however it trained, its whole update is clipped once
        copies = self.max_clients_per_entity if self.unit == "entity" else 1
        return events.times(once, self.local_steps * copies)

    def event(self) -> Any:
        """What one unit suffers in the whole run, at most."""
        rounds = events.times(self.round_event(), self.counted_rounds)
        if not self.reserved:
            return rounds
        local_entity = (self.unit, self.trust) == ("entity", "local")
        copies = self.max_clients_per_entity if local_entity else 1
        others = [events.times(events.gaussian(z), copies) for z in self.reserved]
        return events.composed([rounds, *others])

    def epsilon(self) -> float:
        """The headline figure of the whole run."""
        return accounting.epsilon(self.event(), self.delta, self.neighboring_relation)

    def rdp_epsilon(self) -> float | None:
        """The cross-check of ``epsilon``."""
        return accounting.rdp_epsilon(
            self.event(), self.delta, self.neighboring_relation
        )

    def signal_to_noise(self) -> float | None:
        """Largest possible length of the sum over the expected length of its noise."""
        if self.num_weights is None:
            return None
        noise_stddev_on_sum = self._noise_multiplier() * self.clipping_norm
        noise_stddev_on_sum *= self.noise_surplus**0.5
        largest_sum = self.clipping_norm * self.expected_count
        return float(largest_sum / (noise_stddev_on_sum * self.num_weights**0.5))

    def calibrated(self) -> "PrivacyPlan":
        """This plan with a noise multiplier, solved for where none was given."""
        if self.noise_multiplier is not None:
            return self
        return self.solved("noise_multiplier")

    def solved(
        self, unknown: Unknown, *, target_epsilon: float | None = None
    ) -> "PrivacyPlan":
        """This plan with ``unknown`` changed to just keep the target.

        Args:
          unknown: ``"epsilon"`` sets ``target_epsilon`` to what the rest spends.
          target_epsilon: Instead of the plan's own.
        """
        if unknown == "epsilon":
            return replace(self, target_epsilon=self.epsilon())
        wish = target_epsilon or self.target_epsilon
        if wish is None:
            raise ConfigError(f"target_epsilon is needed to solve for {unknown}.")
        return _solved(replace(self, target_epsilon=wish), unknown)

    def with_rounds(self, num_rounds: int) -> "PrivacyPlan":
        """This plan over ``num_rounds``, with the same share of them for a client."""
        at_most = -(-num_rounds * self.participations // self.num_rounds)
        return replace(self, num_rounds=num_rounds, max_participations=at_most)

    def _noise_multiplier(self) -> float:
        if self.noise_multiplier is None:
            raise ConfigError("noise_multiplier is not known yet: use calibrated().")
        return self.noise_multiplier


def _check_ranges(plan: PrivacyPlan) -> None:
    validate.one_of(("example", "entity", "client"), unit=plan.unit)
    validate.one_of(("local", "distributed", "central"), trust=plan.trust)
    relation = plan.neighboring_relation
    validate.one_of(events.RELATIONS, neighboring_relation=relation)
    validate.one_of(_SAMPLINGS[plan.unit], sampling=plan.sampling)
    validate.probability(delta=plan.delta)
    validate.non_negative(further_attempts=plan.further_attempts)
    validate.fraction(sampling_rate=plan.sampling_rate)
    validate.positive(
        clipping_norm=plan.clipping_norm, expected_count=plan.expected_count
    )
    validate.positive_integer(
        num_units=plan.num_units,
        num_clients=plan.num_clients,
        num_rounds=plan.num_rounds,
        local_steps=plan.local_steps,
        max_participations=plan.participations,
        max_clients_per_entity=plan.max_clients_per_entity,
        num_weights=plan.num_weights or 1,
    )
    if plan.delta >= 1.0 / plan.num_units:
        raise PrivacyError(
            f"delta is {plan.delta:g}, but must be below 1 / {plan.num_units} = "
            f"{1.0 / plan.num_units:.3g}: at or above one over the number of "
            f"{plan.unit} units, revealing one of them outright would be allowed."
        )


def _check_noise(plan: PrivacyPlan) -> None:
    if plan.noise_multiplier is None and plan.target_epsilon is None:
        raise ConfigError("Give noise_multiplier or target_epsilon; both are missing.")
    if plan.noise_multiplier is not None:
        validate.positive(noise_multiplier=plan.noise_multiplier)
    if plan.target_epsilon is not None:
        validate.positive(target_epsilon=plan.target_epsilon)


def _check_combination(plan: PrivacyPlan) -> None:
    if plan.trust == "distributed":
        _check_distributed(plan)
    if plan.trust == "local" and plan.unit == "client":
        raise PrivacyError(
            "unit = 'client' with trust = 'local' would add the full noise to each "
            "client's update and leave no signal. Use trust = 'central'."
        )
    if plan.trust != "local" and plan.local_steps > 1 and plan.unit != "client":
        raise PrivacyError(
            f"local_steps is {plan.local_steps}: with trust = {plan.trust!r} a "
            "contribution is one batch's sum of clipped gradients, because only then "
            f"is one {plan.unit}'s effect bounded. Use local_steps = 1, or trust = "
            "'local'."
        )
    if plan.sampling != "poisson" and plan.sampling_rate != 1.0:
        raise PrivacyError(
            f"sampling_rate is {plan.sampling_rate:g} with sampling = "
            f"{plan.sampling!r}: only Poisson sampling has a rate that amplifies. Use "
            "sampling = 'poisson', or leave sampling_rate out."
        )
    if plan.neighboring_relation == "replace_one" and plan.amplifies:
        raise PrivacyError(
            "neighboring_relation = 'replace_one' with Poisson sampling: no proof of "
            "that amplification is cited here. Use 'add_or_remove_one'."
        )


def _check_distributed(plan: PrivacyPlan) -> None:
    if plan.num_honest is None or plan.num_in_sum is None:
        raise PrivacyError(
            "trust = 'distributed' needs secure aggregation, so that only the noisy "
            "sum is ever seen: give num_in_sum and num_honest (rounds."
            "secure_aggregation = true in a project file). Or use trust = 'local', or "
            "'central' if one owner may see exact contributions."
        )
    validate.positive_integer(num_honest=plan.num_honest, num_in_sum=plan.num_in_sum)
    if plan.num_honest > plan.num_in_sum:
        raise PrivacyError(
            f"num_honest is {plan.num_honest} of {plan.num_in_sum} clients in a sum. "
            "Count on fewer, or enrol more clients."
        )
    if plan.cohort_is_hidden:
        raise PrivacyError(
            "cohort_is_hidden with trust = 'distributed': the aggregator, who is not "
            "trusted, knows who takes part. Claim no amplification by the cohort."
        )


def _check_weak_privacy(plan: PrivacyPlan) -> None:
    if plan.accept_weak_privacy:
        return
    # Costs are worked out on an accepted copy, or this check would call itself.
    rows = [
        _cost_line(replace(plan, accept_weak_privacy=True, target_epsilon=wish))
        for wish in (2.0, 4.0, 8.0)
    ]
    raise PrivacyError(
        f"unit = 'client' with {plan.num_clients} clients (fewer than "
        f"{FEWEST_CLIENTS}) is not a usable guarantee. {plan.num_rounds} rounds cost:\n"
        + "\n".join(rows)
        + "\nUse unit = 'example' or 'entity' with trust = 'local', or set "
        "accept_weak_privacy = true."
    )


def _cost_line(plan: PrivacyPlan) -> str:
    solved = plan.solved("noise_multiplier")
    ratio = solved.signal_to_noise()
    signal = "" if ratio is None else f", signal to noise at most {ratio:.3g}"
    return (
        f"  epsilon {plan.target_epsilon:g}: noise multiplier "
        f"{solved.noise_multiplier:.3g}{signal}"
    )


def _solved(plan: PrivacyPlan, unknown: Unknown) -> PrivacyPlan:
    validate.one_of(
        ("noise_multiplier", "num_rounds", "sampling_rate"), unknown=unknown
    )
    target = Target(
        epsilon=plan.target_epsilon or 0.0,
        delta=plan.delta,
        relation=plan.neighboring_relation,
    )
    if unknown == "noise_multiplier":
        noise = least_noise_multiplier(
            lambda value: replace(plan, noise_multiplier=value).event(), target
        )
        return replace(plan, noise_multiplier=noise)
    if unknown == "num_rounds":
        rounds = most_rounds(lambda num: plan.with_rounds(int(num)).event(), target)
        return plan.with_rounds(rounds)
    if not replace(plan, sampling="poisson", sampling_rate=0.5).amplifies:
        raise ConfigError("sampling_rate changes nothing: no amplification is claimed.")
    plan = replace(plan, sampling="poisson")
    rate = largest_sampling_rate(
        lambda value: replace(plan, sampling_rate=value).event(), target
    )
    count = plan.expected_count * rate / plan.sampling_rate
    return replace(plan, sampling_rate=rate, expected_count=count)
