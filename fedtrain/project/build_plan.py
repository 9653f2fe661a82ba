"""The privacy plan of a project file: its promise, with the data's own counts."""

from typing import Any

import numpy as np

from fedtrain.core.errors import PrivacyError
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.sets.split import DataSplit
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.project.config import PrivacySection, ProjectConfig
from fedtrain.project.paid_evaluation import noise_of_evaluations
from fedtrain.project.paid_export import noise_multipliers
from fedtrain.project.secure_session import session_of


def plan_of(
    config: ProjectConfig,
    privacy: PrivacySection,
    *,
    split: DataSplit,
    sampler: CohortSampler,
    num_weights: int,
) -> PrivacyPlan:
    """The plan of ``[privacy]``; its noise multiplier may still have to be solved for.

    Raises:
      PrivacyError: If the combination keeps no promise, or the data break a bound
        that it rests on; with the way out.
    """
    if privacy.unit == "entity":
        _check_clients_per_entity(split.train, privacy.max_clients_per_entity)
    return PrivacyPlan(
        unit=privacy.unit,
        trust=privacy.trust,
        neighboring_relation=privacy.neighboring_relation,
        delta=privacy.delta,
        sampling=privacy.sampling,
        num_units=_num_units(privacy.unit, split),
        num_clients=split.train.num_clients,
        num_rounds=config.all_rounds,
        clipping_norm=privacy.clipping_norm,
        noise_multiplier=privacy.noise_multiplier,
        target_epsilon=privacy.target_epsilon,
        max_participations=sampler.max_participations(config.all_rounds),
        max_clients_per_entity=privacy.max_clients_per_entity,
        accept_weak_privacy=privacy.accept_weak_privacy,
        num_weights=num_weights,
        reserved=(
            *noise_multipliers(config.export, privacy).values(),
            *noise_of_evaluations(config),
        ),
        further_attempts=config.further_attempts,
        **_shares(config, split.train.num_clients),
        **_drawn_units(config, privacy, sampler, split.train.num_clients),
    )


def _drawn_units(
    config: ProjectConfig,
    privacy: PrivacySection,
    sampler: CohortSampler,
    num_clients: int,
) -> dict[str, Any]:
    """How many units one noised sum is expected to hold, and how they are drawn."""
    cohort_size = sampler.expected_cohort_size(num_clients)
    if privacy.unit == "client":
        return {
            "expected_count": cohort_size,
            "sampling_rate": config.rounds.sampling_rate or 1.0,
            "cohort_is_hidden": privacy.cohort_is_hidden,
        }
    batch_size = config.client.expected_batch_size or 1.0
    clients_in_sum = 1.0 if privacy.trust == "local" else cohort_size
    return {
        "expected_count": batch_size * clients_in_sum,
        "sampling_rate": config.client.sampling_rate or 1.0,
        "local_steps": config.client.local_steps or 1,
    }


def _shares(config: ProjectConfig, num_clients: int) -> dict[str, Any]:
    """Whose noise a sum may hold, and on how much of it the promise rests."""
    session = session_of(config, num_clients)
    if session is None:
        return {}
    return {
        "num_in_sum": session.num_clients,
        "num_honest": session.num_honest_survivors,
    }


def _num_units(unit: str, split: DataSplit) -> int:
    train = split.train
    if unit == "client":
        return train.num_clients
    if unit == "entity" and train.examples.entity_ids is not None:
        return len(np.unique(train.examples.entity_ids))
    return max(train.examples.num_examples, 1)


def _check_clients_per_entity(train: FederatedDataset, declared: int) -> None:
    found = _most_clients_of_an_entity(train)
    if found > declared:
        raise PrivacyError(
            f"privacy.max_clients_per_entity is {declared}, but an entity of "
            f"{train.name} has rows at {found} clients, which would spend more than "
            f"the plan counts. Set it to at least {found} (a bound that holds whatever "
            "the data), or keep each entity at fewer clients."
        )


def _most_clients_of_an_entity(train: FederatedDataset) -> int:
    if train.examples.entity_ids is None or not train.examples.num_examples:
        return 0
    _, entities = np.unique(np.asarray(train.examples.entity_ids), return_inverse=True)
    clients = np.repeat(np.arange(train.num_clients), train.num_examples())
    pairs = np.unique(np.stack([entities.ravel(), clients]), axis=1)
    return int(np.bincount(pairs[0]).max())
