"""The privacy report: what a run promises, in JSON that is checked and in words.

Its fields follow the checklist of Ponomareva et al. (2023), How to DP-fy ML, and NIST
SP 800-226 (2025). An epsilon is never shown without the statement.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

import fedtrain
from fedtrain.core.errors import ConfigError
from fedtrain.core.mechanism import Trust, Unit
from fedtrain.privacy import accounting, events
from fedtrain.privacy.plan import NeighboringRelation, PrivacyPlan, Sampling
from fedtrain.privacy.run_privacy import RunPrivacy

CURVE_DELTAS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_MOST_CLIENTS_LISTED = 200
RELEASED_NOISE = (
    "drawn from a cryptographic stream (AES-256 in counter mode) under a key from the "
    "operating system, exactly, in whole numbers on a grid"
)
SIMULATED_NOISE = (
    "seeded float noise from a Philox generator (fedtrain.core.seeds): repeatable, "
    "and therefore predictable; not a release"
)
SIMULATED_INTEGERS = (
    "exact whole numbers on a grid, drawn from a seeded Philox generator "
    "(fedtrain.core.seeds): repeatable, and therefore predictable; not a release"
)
FLOAT_EXCLUSION = (
    "Floating-point noise is not discrete: attacks on its rounding (Mironov, 2012) are "
    "out of scope in a simulation."
)
RELEASED_EXCLUSION = (
    "What one unit changes in the floating-point rounding of a sum is provided for by "
    "a margin that is measured, not proved (docs/concepts/guarantees.md)."
)
EXCLUSIONS = (
    "Training in other runs, tuning and the choice among runs, unless they are in the "
    "same ledger.",
    "Timing, the fact of taking part, and what clients reveal outside the protocol.",
)
EARLY_EXCLUSION = (
    "The run ended before its last round. Where what was released had a say in that, "
    "the figure for whatever number of rounds is planned_epsilon."
)
PUBLIC_EXCLUSION = (
    "Losses and accuracies shown beside this report are exact: the data is public, and "
    "the guarantee speaks of the weights alone."
)
NO_DIAGNOSTICS = "none were asked for"
_UNITS: dict[Unit, str] = {
    "example": "one row (example)",
    "entity": "all rows of one entity (customer or patient)",
    "client": "everything one client holds",
}
_RELATIONS = {
    "add_or_remove_one": "adding or removing one",
    "replace_one": "replacing one",
    "replace_special": "replacing one by an empty one",
}
_TRUST: dict[Trust, str] = {
    "local": "each client adds its own noise, nobody else need be trusted",
    "distributed": "each client adds a share of the noise, and secure aggregation "
    "shows only the sum; enough clients have to be honest",
    "central": "the aggregator sees exact contributions and adds the noise",
}
_OBSERVERS: dict[Trust, str] = {
    "local": "whoever sees each client's contribution",
    "distributed": "whoever sees the sum of each round, such as the aggregator, with "
    "as many clients as are thought to work with it",
    "central": "whoever sees the noised sum of each round; the aggregator, which sees "
    "more, is trusted",
}

Status = Literal["simulated", "NOT A RELEASE", "release"]
_BADGES: dict[Status, str] = {
    "simulated": "Simulated",
    "NOT A RELEASE": "NOT A RELEASE",
    "release": "Release",
}
_KINDS: dict[Status, str] = {
    "simulated": "Simulated: what this run would have spent",
    "NOT A RELEASE": (
        "NOT A RELEASE: the noise is seeded, so this is what a release would spend"
    ),
    "release": "Release: the noise came from a secret key, exactly and on a grid",
}


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, ser_json_inf_nan="strings"
    )


class DataScope(_Strict):
    """What data the guarantee speaks of, and what it does not."""

    training: str
    evaluation: str
    normaliser: str
    tuning: str
    diagnostics: str = NO_DIAGNOSTICS


class PrivacyReport(_Strict):
    """Everything that a reader needs to judge the guarantee.

    ``epsilon`` is what was spent, by PLD, of the unit that spent the most;
    ``rdp_epsilon`` its cross-check. ``num_units`` is None where it is an exact count of
    private rows. An epsilon of ``Infinity`` is not private at all. Every epsilon holds
    against ``strongest_observer``; reports from before it was written have none.
    """

    format_version: Literal[1] = 1
    status: Status
    badge: str
    statement: str
    run_id: str
    unit: Unit
    trust: Trust
    strongest_observer: str | None = None
    neighboring_relation: NeighboringRelation
    delta: float = pydantic.Field(gt=0.0, lt=1.0)
    epsilon: float = pydantic.Field(ge=0.0)
    rdp_epsilon: float | None
    target_epsilon: float | None
    planned_epsilon: float
    zcdp_rho: float | None
    epsilon_curve: list[tuple[float, float]]
    accountant: str
    cross_check: str
    num_units: int | None
    num_clients: int
    max_clients_per_entity: int
    data: DataScope
    mechanisms: list[dict[str, Any]]
    sampling: Sampling
    sampling_rate: float
    cohort_sampler: str
    amplification_claimed: bool
    amplification: str
    rounds_planned: int
    rounds_done: int
    lost_clients: int | None
    noise_shortfall: float
    epsilon_by_client: dict[str, float] | None
    ledger_path: str
    ledger_length: int
    ledger_hash: str
    noise_source: str
    code_version: str
    known_exclusions: list[str]
    empirical_lower_bound: float | None
    file_hashes: dict[str, str]
    signature: str | None


def privacy_report(
    privacy: RunPrivacy,
    *,
    rounds_done: int,
    data: DataScope,
    lost_clients: int | None = 0,
    exported: Sequence[Path | str] = (),
) -> PrivacyReport:
    """The report of a run, from its ledger and its plan.

    Args:
      privacy: Of the run.
      rounds_done: Rounds that were run.
      data: What data the guarantee covers.
      lost_clients: Contributions that are missing from sums. With local or central
        noise they take no noise with them. None where the cohort is hidden, or its
        regions are served: each knows its own.
      exported: Files whose hashes the report should carry.
    """
    plan = privacy.plan.calibrated()
    delta, relation = plan.delta, plan.neighboring_relation
    worst = _worst_event(privacy)
    epsilon = accounting.epsilon(worst, delta, relation)
    status = _status(privacy)
    head = privacy.head()
    return PrivacyReport(
        status=status,
        badge=_BADGES[status],
        statement=_statement(privacy, plan, epsilon),
        run_id=privacy.run_id,
        unit=plan.unit,
        trust=plan.trust,
        strongest_observer=_observer(privacy),
        neighboring_relation=relation,
        delta=delta,
        epsilon=epsilon,
        rdp_epsilon=accounting.rdp_epsilon(worst, delta, relation),
        target_epsilon=plan.target_epsilon,
        planned_epsilon=plan.epsilon(),
        zcdp_rho=_zcdp_rho(worst, relation, epsilon),
        epsilon_curve=accounting.epsilon_curve(worst, CURVE_DELTAS, relation),
        accountant=accounting.accountant(worst),
        cross_check=accounting.CROSS_CHECK,
        num_units=_shown_units(privacy),
        num_clients=plan.num_clients,
        max_clients_per_entity=plan.max_clients_per_entity,
        data=data,
        mechanisms=[mechanism.as_dict() for mechanism in privacy.mechanisms],
        sampling=plan.sampling,
        sampling_rate=plan.sampling_rate,
        cohort_sampler=privacy.sampler.name,
        amplification_claimed=_claims_amplification(privacy),
        amplification=_amplification(privacy),
        rounds_planned=plan.num_rounds,
        rounds_done=rounds_done,
        lost_clients=lost_clients,
        noise_shortfall=0.0,
        epsilon_by_client=_epsilon_by_client(privacy),
        ledger_path=str(privacy.ledger.path),
        ledger_length=head["length"],
        ledger_hash=head["hash"],
        noise_source=_noise_source(privacy),
        code_version=f"fedtrain {fedtrain.__version__}",
        known_exclusions=_exclusions(privacy, rounds_done),
        empirical_lower_bound=None,
        file_hashes={Path(path).name: _file_hash(Path(path)) for path in exported},
        signature=None,
    )


def statement(report: Mapping[str, Any] | PrivacyReport) -> str:
    """The sentences that go wherever an epsilon goes."""
    if isinstance(report, PrivacyReport):
        return report.statement
    return checked_report(report).statement


def checked_report(values: Mapping[str, Any]) -> PrivacyReport:
    """A report from plain values, such as those of a JSON file.

    Raises:
      ConfigError: Names the first field that is missing, unknown or out of range.
    """
    try:
        return PrivacyReport.model_validate(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"Privacy report: {field}: {first['msg']}.") from error


def to_json(report: PrivacyReport) -> str:
    """The report as JSON text with its fields in order: what would be signed."""
    return report.model_dump_json(indent=2) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON schema of the report."""
    return PrivacyReport.model_json_schema()


def _status(privacy: RunPrivacy) -> Status:
    """A release if every mechanism's noise is; the data decide how others are called.

    The mechanisms of a partner's round are those it ran (``released``); an aggregator
    states what its partners' plan says (``NOISE_OF_PARTNERS``).
    """
    if all(mechanism.is_released for mechanism in privacy.mechanisms):
        return "release"
    return "NOT A RELEASE" if privacy.is_private else "simulated"


def _noise_source(privacy: RunPrivacy) -> str:
    if _status(privacy) == "release":
        return RELEASED_NOISE
    return SIMULATED_INTEGERS if _is_integer(privacy) else SIMULATED_NOISE


def _is_integer(privacy: RunPrivacy) -> bool:
    """Whether all noise is whole numbers on a sum of whole numbers."""
    details = [dict(mechanism.details) for mechanism in privacy.mechanisms]
    return all("sensitivity_squared" in own for own in details)


def _num_regions(privacy: RunPrivacy) -> int:
    """Of how many parts of the clients somebody sees the sum."""
    known = (dict(one.details).get("num_regions", 1) for one in privacy.mechanisms)
    return max(known, default=1)


def _observer(privacy: RunPrivacy) -> str:
    num_regions = _num_regions(privacy)
    if num_regions == 1:
        return _OBSERVERS[privacy.plan.trust]
    return (
        f"whoever sees the sums of all {num_regions} regions of each round, such as "
        "their aggregators and the top one together, with as many clients of each "
        "region as are thought to work with them"
    )


def _trust(privacy: RunPrivacy) -> str:
    if _num_regions(privacy) == 1:
        return _TRUST[privacy.plan.trust]
    return (
        "each client adds a share of the noise, and secure aggregation shows only the "
        "sum of each region; enough clients of each have to be honest; strongest "
        f"observer: {_observer(privacy)}"
    )


def _shown_units(privacy: RunPrivacy) -> int | None:
    """Clients are public; how many private rows or entities there are is not."""
    if privacy.is_private and privacy.plan.unit != "client":
        return None
    return privacy.plan.num_units


def _exclusions(privacy: RunPrivacy, rounds_done: int) -> list[str]:
    own = [*EXCLUSIONS, *_rounding(privacy)]
    if rounds_done < privacy.plan.num_rounds:
        own.append(EARLY_EXCLUSION)
    return own if privacy.is_private else [*own, PUBLIC_EXCLUSION]


def _rounding(privacy: RunPrivacy) -> list[str]:
    """What is left open about floating-point numbers."""
    if _is_integer(privacy):
        return [] if privacy.plan.unit == "client" else [RELEASED_EXCLUSION]
    is_release = _status(privacy) == "release"
    return [RELEASED_EXCLUSION if is_release else FLOAT_EXCLUSION]


def _worst_event(privacy: RunPrivacy) -> Any:
    plan = privacy.plan
    return max(
        privacy.ledger.spending.largest(plan.unit),
        key=lambda event: accounting.epsilon(
            event, plan.delta, plan.neighboring_relation, interval=accounting.QUICK
        ),
    )


def _zcdp_rho(event: Any, relation: str, epsilon: float) -> float | None:
    return accounting.zcdp_rho(event, relation) if math.isfinite(epsilon) else None


def _epsilon_by_client(privacy: RunPrivacy) -> dict[str, float] | None:
    """Each client's own epsilon, where they differ and are not too many to list."""
    spending, plan = privacy.ledger.spending, privacy.plan
    clients = spending.num_by_client()
    if privacy.amplifies or len(clients) > _MOST_CLIENTS_LISTED:
        return None
    return {
        client: accounting.epsilon(
            spending.of_client(client, plan.unit), plan.delta, plan.neighboring_relation
        )
        for client in sorted(clients)
    }


def _claims_amplification(privacy: RunPrivacy) -> bool:
    leaves = events.counted(privacy.round_event())
    return any(isinstance(leaf, events.Sampled | events.Mixture) for leaf in leaves)


def _amplification(privacy: RunPrivacy) -> str:
    if privacy.plan.unit == "client":
        return privacy.sampler.amplification
    if not _claims_amplification(privacy):
        return "No amplification claimed: every row is in every step."
    rows = "entities" if privacy.plan.unit == "entity" else "rows"
    return (
        f"Amplification claimed: each client Poisson-samples its {rows} at the public "
        f"rate {privacy.plan.sampling_rate:g} in every step, and the draw stays there. "
        "None is claimed for the choice of clients."
    )


def _statement(privacy: RunPrivacy, plan: PrivacyPlan, epsilon: float) -> str:
    kind = _KINDS[_status(privacy)]
    accountant = accounting.accountant(_worst_event(privacy))
    claim = "claimed" if _claims_amplification(privacy) else "not claimed"
    return (
        f"{kind}. epsilon = {epsilon:.3g} at delta = {plan.delta:g}; unit: "
        f"{_UNITS[plan.unit]}; neighbouring relation: "
        f"{_RELATIONS[plan.neighboring_relation]} ({plan.neighboring_relation}); "
        f"trust: {plan.trust} ({_trust(privacy)}); accountant: "
        f"{accountant}; amplification by sampling: {claim}."
    )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
