"""Noise in whole numbers on the sum, from the numbers of a project file."""

import math

from fedtrain.aggregation.fixed_point import FixedPoint
from fedtrain.core import nests, seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.models.model import Model
from fedtrain.privacy.adaptive_clipping import FEWEST_UNITS
from fedtrain.privacy.adaptive_gradient_sum import QuantileQuery, quantile_query
from fedtrain.privacy.gradient_sum import joint_norm
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.noised_metrics import MetricsQuery, metrics_query
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.project.config import ProjectConfig

# Half of what the ring holds is for contributions, the rest for noise.
_MOST_OF_ALL = 1 << 30


def integer_mechanism(
    config: ProjectConfig, plan: PrivacyPlan, model: Model
) -> IntegerGaussian | None:
    """What the file asks for; None where noise is local, or floats.

    Args:
      config: Of the project.
      plan: Calibrated.
      model: What is trained; its state is in the sum, too.

    Raises:
      PrivacyError: If sums may wrap, or shares are too narrow for their grid.
    """
    privacy = config.privacy
    if privacy is None or privacy.trust == "local":
        return None
    if privacy.trust == "central" and privacy.mechanism != "discrete_gaussian":
        return None
    query, metrics = query_of(config, plan), metrics_of(config, plan, model)
    num_metrics = 1 + len(metrics.names) if metrics else 0
    num_weights = nests.num_weights(model.init(seeds.root(0)))
    num_in_sum = plan.num_in_sum or config.rounds.cohort_size or plan.num_clients
    return IntegerGaussian(
        unit=privacy.unit,
        trust=privacy.trust,
        clipping_norm=joint_norm(
            privacy.clipping_norm, query, privacy.metrics_share or 0.0
        ),
        noise_multiplier=plan.noise_multiplier or 0.0,
        grid=FixedPoint(
            num_weights=num_weights + num_metrics + (query is not None),
            grid_bits=privacy.grid_bits,
            bounded="contribution" if privacy.unit == "client" else "unit",
            largest=max(_MOST_OF_ALL // num_in_sum, 1),
        ),
        num_rounds=plan.num_rounds + plan.further_attempts,
        num_clients=num_in_sum,
        num_honest=plan.num_honest or 1,
        sampling_rate=1.0 if privacy.unit == "client" else plan.sampling_rate,
        max_clients_per_entity=privacy.max_clients_per_entity,
        num_regions=config.rounds.num_regions or 1,
    )


def query_of(config: ProjectConfig, plan: PrivacyPlan) -> QuantileQuery | None:
    """The quantile query of adaptive clipping in a sum of rows' gradients.

    Raises:
      PrivacyError: If too few units are expected in a sum.
    """
    privacy = config.privacy
    if privacy is None or privacy.mechanism != "adaptive_gaussian":
        return None
    if privacy.unit == "client" or privacy.trust != "distributed":
        return None
    _check_units(plan, config.rounds.num_regions or 1)
    return quantile_query(
        initial_clipping_norm=privacy.clipping_norm,
        noise_multiplier=plan.noise_multiplier or 0.0,
        expected_count=plan.expected_count,
        unclipped_quantile=privacy.unclipped_quantile,
    )


def metrics_of(
    config: ProjectConfig, plan: PrivacyPlan, model: Model
) -> MetricsQuery | None:
    """Loss and metrics in the same sum, where the file gives them a share."""
    privacy = config.privacy
    if privacy is None or privacy.metrics_share is None:
        return None
    return metrics_query(
        model,
        clipping_norm=privacy.clipping_norm,
        share=privacy.metrics_share,
        expected_count=plan.expected_count,
    )


def words_of_ring(mechanism: IntegerGaussian, clipping_norm: float) -> str:
    """What the whole numbers are, and that they fit, for a plan.

    Args:
      mechanism: Of the sums.
      clipping_norm: Of the gradients alone, without what comes along with them.
    """
    grid, ratio = mechanism.grid, mechanism.clipping_norm / clipping_norm
    shared = (
        ""
        if ratio <= 1.0
        else " What comes along with the gradients is in the same bound, so their "
        f"noise is {ratio:.4g} times as wide as alone."
    )
    return (
        f"Whole numbers on a grid of 2^-{grid.grid_bits} of the clipping norm, modulo "
        f"2^32: {4 * grid.num_weights} bytes a contribution. The chance that any "
        "coordinate wraps in the run, all noise included, is below "
        f"2^{mechanism.log2_wrap_probability:.0f} (at most 2^-40 is allowed).{shared}"
    )


def _check_units(plan: PrivacyPlan, num_regions: int) -> None:
    """Refuses to count, under the noise of one sum, fewer units than a count needs."""
    num_clients = plan.num_in_sum or plan.num_clients
    smallest = num_clients // num_regions
    in_sum = plan.expected_count * smallest / num_clients
    if in_sum >= FEWEST_UNITS:
        return
    of_regions, fewer = "", ""
    if num_regions > 1:
        of_regions, fewer = f" in each of the {num_regions} regions", "fewer regions, "
    raise PrivacyError(
        f"A sum of {smallest} clients is expected to hold {in_sum:g} units: adaptive "
        f"clipping counts which of them are clipped and needs at least {FEWEST_UNITS}"
        f"{of_regions}. Use client.expected_batch_size of at least "
        f"{math.ceil(FEWEST_UNITS / smallest)}, {fewer}or mechanism = "
        '"discrete_gaussian" with a fixed norm.'
    )
