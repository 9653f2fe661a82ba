"""How contributions become short, from a project file."""

from fedtrain.aggregation.aggregator import Aggregator, chain
from fedtrain.aggregation.rotation import random_rotation
from fedtrain.aggregation.stochastic_quantisation import stochastic_quantisation
from fedtrain.aggregation.top_k import top_k_with_error_feedback
from fedtrain.core import seeds
from fedtrain.project.config import ProjectConfig


def compressed(aggregator: Aggregator, config: ProjectConfig) -> Aggregator:
    """``aggregator`` with the stages of ``rounds.update_compression`` after it.

    The rotation's seed follows from the run's, and reaches clients by the broadcast: a
    partner's installation, which has another seed, turns as the aggregator does.
    """
    kind = config.rounds.update_compression
    if kind is None:
        return aggregator
    if kind == "top_k":
        fraction = config.rounds.kept_fraction or 1.0
        return chain(aggregator, top_k_with_error_feedback(fraction))
    rotation = random_rotation(seeds.derive(seeds.root(config.seed), "rotation"))
    grid = stochastic_quantisation(8 if kind == "int8" else 4)
    return chain(aggregator, rotation, grid)
