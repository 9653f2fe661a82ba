"""Optimizers and their schedules, from a section of a project file."""

from collections.abc import Callable

from fedtrain.optimizers import schedules
from fedtrain.optimizers.adaptive import adagrad, adam, yogi
from fedtrain.optimizers.optimizer import Optimizer, Schedule
from fedtrain.optimizers.sgd import sgd
from fedtrain.project.config import OptimizerSection

_BUILDERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "yogi": yogi,
    "adagrad": adagrad,
}


def optimizer_of(section: OptimizerSection) -> Optimizer:
    """The optimizer that ``section`` describes."""
    keys = ["momentum", "weight_decay", "beta_1", "beta_2", "epsilon"]
    given = {key: getattr(section, key) for key in keys if getattr(section, key)}
    return _BUILDERS[section.optimizer](learning_rate_of(section), **given)


def learning_rate_of(section: OptimizerSection) -> float | Schedule:
    """A number, or a function of the step where a schedule is given."""
    schedule = section.schedule
    rate = section.learning_rate or 1.0
    if schedule.kind == "exponential":
        changing = schedules.exponential_decay(
            rate, decay=schedule.decay or 1.0, every=schedule.every
        )
    elif schedule.kind == "cosine":
        changing = schedules.cosine_decay(
            rate, num_steps=schedule.num_steps or 1, final=schedule.final
        )
    elif schedule.warmup_steps:
        changing = schedules.constant(rate)
    else:
        return rate
    if not schedule.warmup_steps:
        return changing
    return schedules.linear_warmup(changing, num_steps=schedule.warmup_steps)
