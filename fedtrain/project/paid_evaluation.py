"""What evaluations of private rows cost, known from a project file alone."""

import math
from typing import Any

from fedtrain.privacy import events
from fedtrain.privacy.account import copies_of, noise_multiplier_for
from fedtrain.project.config import ProjectConfig


def num_evaluations(config: ProjectConfig) -> int:
    """How often a run of all its rounds is evaluated."""
    ends = {config.rounds.num_rounds, config.all_rounds}
    every = config.evaluation.every
    return len(ends | set(range(every, config.all_rounds + 1, every)))


def num_paid_evaluations(config: ProjectConfig) -> int:
    """How many evaluations the plan counts: of a served run, repeated ones, too."""
    return num_evaluations(config) + config.further_attempts


def evaluation_noise(config: ProjectConfig) -> float | None:
    """The noise multiplier of each evaluation; None where nothing is to be paid.

    Of k queries with k times the variance the epsilon is that of one (Gaussian noise
    composes so exactly).
    """
    section, privacy = config.evaluation, config.privacy
    if privacy is None or section.epsilon is None:
        return None if privacy is None else section.noise_multiplier
    alone = noise_multiplier_for(
        section.epsilon,
        delta=privacy.delta,
        neighboring_relation=privacy.neighboring_relation,
        copies=_copies(config),
    )
    return alone * math.sqrt(num_paid_evaluations(config))


def noise_of_evaluations(config: ProjectConfig) -> tuple[float, ...]:
    """Noise multipliers of all evaluations of a run, for its plan."""
    noise = evaluation_noise(config)
    return () if noise is None else (noise,) * num_paid_evaluations(config)


def evaluation_cost(config: ProjectConfig, noise_multiplier: float) -> events.Counts:
    """What one unit pays for one evaluation with that noise."""
    event = events.gaussian(noise_multiplier)
    return events.counted(events.times(event, _copies(config)))


def _copies(config: ProjectConfig) -> int:
    privacy: Any = config.privacy
    return copies_of(privacy.unit, privacy.trust, privacy.max_clients_per_entity)
