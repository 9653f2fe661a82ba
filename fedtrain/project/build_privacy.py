"""The round that keeps the promise of ``[privacy]``: three kinds, by unit and trust.

- unit client, trust central: each client's update is clipped, the server adds noise;
- unit example or entity, trust local: DP-SGD inside every client;
- unit example or entity, trust central: one step a round, noise on the sum.

With trust distributed it is the first or the last, in whole numbers, and each client
adds a share of the noise.
"""

import math
from typing import Any

from fedtrain.aggregation.aggregator import Aggregator, chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.client_work import ClientWork
from fedtrain.models.model import Model
from fedtrain.privacy.adaptive_clipping import adaptive_gaussian_mechanism
from fedtrain.privacy.correlated_noise import banded_mechanism, tree_mechanism
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.fixed_point_sum import fixed_point_sum
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.participation import Participation
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.project.build_optimizers import optimizer_of
from fedtrain.project.build_round import plain_work
from fedtrain.project.build_update_compression import compressed
from fedtrain.project.config import PrivacySection, ProjectConfig
from fedtrain.project.integer_mechanism import integer_mechanism, metrics_of, query_of
from fedtrain.rounds.dp_fed_sgd import dp_fed_sgd, integer_fed_sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round


def private_round(
    config: ProjectConfig,
    plan: PrivacyPlan,
    model: Model,
    *,
    expected_cohort_size: float,
    reports_metrics: bool,
) -> Round:
    """The round of ``config`` with the mechanism that ``plan`` was made for.

    Args:
      config: Has a ``[privacy]`` section.
      plan: Calibrated: its noise multiplier is known.
      model: What is trained.
      expected_cohort_size: The public number of clients in a round.
      reports_metrics: Whether exact sums of loss and metrics may leave the clients.
    """
    privacy = _section(config)
    server_optimizer = optimizer_of(config.server)
    integer = integer_mechanism(config, plan, model)
    if integer is not None and privacy.unit != "client":
        return integer_fed_sgd(
            model,
            server_optimizer,
            integer,
            expected_count=plan.expected_count,
            max_rows_per_entity=privacy.max_rows_per_entity or 1,
            query=query_of(config, plan),
            metrics=metrics_of(config, plan, model),
        )
    if privacy.unit != "client" and privacy.trust == "central":
        return dp_fed_sgd(model, server_optimizer, **_gradient_sum(privacy, plan))
    mean = mean_over_expected_cohort(
        expected_cohort_size, max_weight=_max_weight(config, privacy)
    )
    if privacy.unit == "client":
        shows = reports_metrics and integer is None
        work = plain_work(config, model, reports_metrics=shows)
        stage = fixed_point_sum(integer) if integer else client_mechanism(config, plan)
        mean = chain(mean, stage)
    else:
        work = _dp_sgd(config, plan, model, reports_metrics=reports_metrics)
    mean = compressed(mean, config)
    round_ = fed_avg(work, aggregator=mean, server_optimizer=server_optimizer)
    return round_._replace(name=config.rounds.algorithm)


def client_mechanism(config: ProjectConfig, plan: PrivacyPlan) -> Aggregator:
    """The stage that clips each client's update and adds noise to the sum."""
    privacy = _section(config)
    noise = {
        "clipping_norm": privacy.clipping_norm,
        "noise_multiplier": plan.noise_multiplier or 0.0,
    }
    if privacy.mechanism == "gaussian":
        return gaussian_mechanism(**noise)
    if privacy.mechanism == "adaptive_gaussian":
        return adaptive_gaussian_mechanism(
            initial_clipping_norm=privacy.clipping_norm,
            noise_multiplier=noise["noise_multiplier"],
            expected_cohort_size=plan.expected_count,
            unclipped_quantile=privacy.unclipped_quantile,
        )
    pattern = Participation(
        num_rounds=plan.num_rounds, min_separation=config.rounds.min_separation or 1
    )
    # The plan counts a client's participations; these stages speak of the whole run.
    noise["noise_multiplier"] /= math.sqrt(pattern.most)
    if privacy.mechanism == "tree":
        return tree_mechanism(**noise, participation=pattern)
    return banded_mechanism(**noise, participation=pattern, num_bands=privacy.num_bands)


def _dp_sgd(
    config: ProjectConfig, plan: PrivacyPlan, model: Model, *, reports_metrics: bool
) -> ClientWork:
    privacy = _section(config)
    return dp_sgd(
        model,
        optimizer_of(config.client),
        clipping_norm=privacy.clipping_norm,
        noise_multiplier=plan.noise_multiplier or 0.0,
        sampling_rate=plan.sampling_rate,
        local_steps=plan.local_steps,
        expected_batch_size=config.client.expected_batch_size or 0.0,
        unit="entity" if privacy.unit == "entity" else "example",
        max_rows_per_entity=privacy.max_rows_per_entity or 1,
        reports_metrics=reports_metrics,
    )


def _gradient_sum(privacy: PrivacySection, plan: PrivacyPlan) -> dict[str, Any]:
    return {
        "clipping_norm": privacy.clipping_norm,
        "noise_multiplier": plan.noise_multiplier or 0.0,
        "sampling_rate": plan.sampling_rate,
        "expected_count": plan.expected_count,
        "unit": privacy.unit,
        "max_rows_per_entity": privacy.max_rows_per_entity or 1,
        "max_clients_per_entity": privacy.max_clients_per_entity,
        "local_steps": plan.local_steps,
    }


def _max_weight(config: ProjectConfig, privacy: PrivacySection) -> float | None:
    return privacy.max_weight if config.rounds.weighted else None


def _section(config: ProjectConfig) -> PrivacySection:
    if config.privacy is None:
        raise ValueError("private_round needs a configuration with [privacy].")
    return config.privacy
