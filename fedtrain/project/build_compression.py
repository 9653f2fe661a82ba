"""The constraint of ``[compression]``, and the fine-tuning rounds under it."""

from collections.abc import Iterator
from typing import Any

from fedtrain.compression.cluster import clustered
from fedtrain.compression.constraint import Constraint, chain, kernel_leaves
from fedtrain.compression.fine_tune import RoundOf, fine_tuned
from fedtrain.compression.prune import (
    Sparsity,
    polynomial_sparsity,
    pruned,
    pruned_2_of_4,
)
from fedtrain.compression.quantize import quantized
from fedtrain.core.errors import ConfigError
from fedtrain.models.model import Model
from fedtrain.project.config import CompressionSection, ProjectConfig
from fedtrain.rounds.round import Round


def constraint_of(config: ProjectConfig, trainable: Any) -> Constraint | None:
    """What the compressed weights have to satisfy; None without ``[compression]``.

    Args:
      config: Checked.
      trainable: Weights of the model, to see that there is something to compress.

    Raises:
      ConfigError: If the model has no kernel.
    """
    section = config.compression
    if section is None:
        return None
    try:
        kernel_leaves(trainable, None)
    except ConfigError as error:
        raise ConfigError(
            f"[compression] has nothing to compress in this model: {error} "
            "Leave the section out."
        ) from error
    return chain(*_constraints(section, config.rounds.num_rounds))


def tuning_round(
    round_of: RoundOf, model: Model, constraint: Constraint | None
) -> Round | None:
    """A round under ``constraint``; None where there is none."""
    return None if constraint is None else fine_tuned(round_of, model, constraint)


def _constraints(section: CompressionSection, begin: int) -> Iterator[Constraint]:
    if section.prune_pattern == "2_of_4":
        yield pruned_2_of_4()
    elif section.prune_sparsity is not None:
        yield pruned(_sparsity(section, begin), scope=section.prune_scope)
    if section.num_clusters is not None:
        yield clustered(section.num_clusters)
    if section.quantize:
        # Channels with scales of their own would tear the values of a cluster apart.
        yield quantized(per_channel=section.num_clusters is None)


def _sparsity(section: CompressionSection, begin: int) -> float | Sparsity:
    """The share of zeros, reached in the last of ``prune_steps`` rounds."""
    final = section.prune_sparsity or 0.0
    if section.prune_steps == 1:
        return final
    return polynomial_sparsity(
        final, begin_round=begin - 1, end_round=begin - 1 + section.prune_steps
    )
