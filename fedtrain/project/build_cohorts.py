"""Who takes part in a round, from a project file."""

from fedtrain.data import cohorts
from fedtrain.data.cohorts import CohortSampler
from fedtrain.project.config import ProjectConfig


def sampler_of(config: ProjectConfig) -> CohortSampler:
    """The sampler of ``[rounds]``; ``[privacy]`` says whether cohorts are hidden."""
    rounds = config.rounds
    if rounds.sampler == "uniform":
        return cohorts.uniform_sampler(cohort_size=rounds.cohort_size or 0)
    if rounds.sampler == "poisson":
        privacy = config.privacy
        return cohorts.poisson_sampler(
            sampling_rate=rounds.sampling_rate or 0.0,
            cohort_is_hidden=privacy is not None and privacy.cohort_is_hidden,
        )
    if rounds.sampler == "cyclic":
        return cohorts.cyclic_sampler(
            cohort_size=rounds.cohort_size or 0,
            min_separation=rounds.min_separation or 1,
        )
    return cohorts.full_participation()
