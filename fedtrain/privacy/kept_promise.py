"""Whether what runs a round keeps what the plan promises."""

from fedtrain.core.errors import PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.data.cohorts import CohortSampler
from fedtrain.privacy.plan import PrivacyPlan


def check_mechanisms(plan: PrivacyPlan, mechanisms: tuple[Mechanism, ...]) -> None:
    """Raises PrivacyError unless each mechanism protects what the plan promises."""
    if not mechanisms:
        raise PrivacyError(
            "The round has no privacy mechanism, so nothing keeps the plan. Use "
            "dp_sgd(...), gaussian_mechanism(...) or dp_fed_sgd(...)."
        )
    for mechanism in mechanisms:
        if (mechanism.unit, mechanism.trust) != (plan.unit, plan.trust):
            raise PrivacyError(
                f"The plan promises unit = {plan.unit!r}, trust = {plan.trust!r}, but "
                f"the {mechanism.name} mechanism gives {mechanism.unit!r}, "
                f"{mechanism.trust!r}."
            )
        _check_shares(plan, mechanism)


def check_sampler(
    plan: PrivacyPlan, mechanisms: tuple[Mechanism, ...], sampler: CohortSampler
) -> None:
    """Raises PrivacyError unless cohorts are drawn as plan and mechanisms assume."""
    needed = max(mechanism.min_separation for mechanism in mechanisms)
    if sampler.min_separation < needed:
        raise PrivacyError(
            f"The {mechanisms[0].name} mechanism needs {needed} rounds between two "
            f"participations, but the {sampler.name} sampler promises "
            f"{sampler.min_separation}. Use cyclic_sampler(min_separation={needed})."
        )
    claimed = plan.unit == "client" and plan.amplifies
    if claimed and not sampler.amplifies:
        raise PrivacyError(
            f"The plan claims amplification by Poisson sampling, but the {sampler.name}"
            " sampler does not earn it. Use poisson_sampler(..., "
            "cohort_is_hidden=True), or plan without amplification."
        )


def _check_shares(plan: PrivacyPlan, mechanism: Mechanism) -> None:
    """Refuses neighbours of which one has a client, and so a share of noise, less."""
    if (plan.unit, plan.neighboring_relation) != ("client", "add_or_remove_one"):
        return
    if mechanism.trust == "distributed":
        raise PrivacyError(
            "Each client adds a share of the noise (and regions are dealt by the order "
            "of the clients): with one client fewer a sum has less noise, which tells, "
            "so neighboring_relation 'add_or_remove_one' does not hold for clients. "
            "Use 'replace_special' or 'replace_one'."
        )
