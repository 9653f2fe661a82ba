"""The objects of a run whose rows stay with partners: equal at both ends of the wire.

The aggregator and every partner build the same ``Round`` from the same sections, the
same schema and the same declared numbers, so that what was simulated is what is run.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.declared import declared_population
from fedtrain.data.readers.read import read
from fedtrain.data.schema import Schema, load_schema
from fedtrain.data.schema_check import missing_values
from fedtrain.privacy.noise_source import NOISE_OF_PARTNERS, ReleasedNoise
from fedtrain.project.build import Project, build
from fedtrain.project.build_data import MISSING_IN_FILE, split_from
from fedtrain.project.config import ProjectConfig, ServiceSection
from fedtrain.project.secure_session import partners_sessions
from fedtrain.rounds.released import released


def service_of(config: ProjectConfig) -> ServiceSection:
    """The ``[service]`` of ``config``.

    Raises:
      ConfigError: If there is none, or the file describes what cannot be served.
    """
    if config.service is None:
        raise ConfigError(
            "The project file has no [service] section: say who takes part, such as "
            '[service] clients = ["bank-a", "bank-b"] and rows_per_client = 10000.'
        )
    if config.data.schema_path is None:
        raise ConfigError(
            "A federation needs data.schema_path: every partner's rows are checked "
            "against one schema. `fedtrain data describe federation.toml --schema "
            "schema.json` writes one to edit."
        )
    _check_trust(config)
    _check_goals(config.service, least_reports(config))
    return config.service


def least_reports(config: ProjectConfig) -> int:
    """With how few contributions a round may close: behind masks, the threshold.

    Of several regions it is the lowest.

    Raises:
      ConfigError: If secure aggregation has no session for so many clients.
    """
    sessions, service = partners_sessions(config), config.service
    if sessions:
        return min(session.parameters.threshold for session in sessions)
    if service is None:
        return 0
    return service.least_reports or service.report_goal or len(service.clients)


def deployed(
    config: ProjectConfig,
    *,
    folder: Path,
    schema: Schema | None = None,
    noise: ReleasedNoise = NOISE_OF_PARTNERS,
) -> Project:
    """The project of ``config`` with a declared population in place of rows.

    With ``[privacy]`` the noise is one for release, unless the run repeats a
    simulation.

    Args:
      config: With ``[service]``.
      folder: Where relative paths in it start.
      schema: In place of the file ``data.schema_path``, where that is not there.
      noise: A partner's own, or the aggregator's where it adds the noise; by default
        the round is described and cannot be drawn.
    """
    return drawing_from(declared(config, folder=folder, schema=schema), noise)


def drawing_from(project: Project, noise: ReleasedNoise) -> Project:
    """What ``declared`` gave, with its noise from ``noise`` where it is for release."""
    service = service_of(project.config)
    if project.config.privacy is None or service.repeats_simulation:
        return project
    return replace(project, round_=released(project.round_, noise))


def declared(
    config: ProjectConfig, *, folder: Path, schema: Schema | None = None
) -> Project:
    """As ``deployed``, with the noise of a simulation."""
    service = service_of(config)
    known = schema or load_schema(folder / (config.data.schema_path or ""))
    train = declared_population(
        known,
        service.clients,
        rows_per_client=service.rows_per_client,
        name=config.name,
    )
    test = replace(train, examples=train.examples.slice(0, 0))
    if config.data.test_path is not None:
        plain = known.model_copy(update={"client": None, "entity": None})
        with missing_values(MISSING_IN_FILE):
            test = read(folder / config.data.test_path, schema=plain, name="test")
    split = split_from(train, test, source="partners' own rows")
    return build(_without_comparison(config), folder=folder, data=split)


def stated_mechanism(project: Project) -> dict[str, Any]:
    """The clients' mechanism as a plan states it: plain values, as JSON gives them."""
    (mechanism, *_) = project.round_.mechanisms
    values: dict[str, Any] = json.loads(json.dumps(mechanism.as_dict(), default=str))
    return values


def _without_comparison(config: ProjectConfig) -> ProjectConfig:
    evaluation = config.evaluation.model_copy(update={"baselines": False})
    return config.model_copy(update={"evaluation": evaluation})


def _check_goals(service: ServiceSection, least: int) -> None:
    num_clients = len(service.clients)
    goal = service.report_goal or num_clients
    if len(set(service.clients)) < num_clients:
        raise ConfigError(
            f"service.clients = {service.clients} names a client twice; each is one "
            "partner."
        )
    if not least <= goal <= num_clients:
        raise ConfigError(
            f"service.least_reports = {least} and service.report_goal = {goal} must "
            f"not decrease up to the number of clients, {num_clients}."
        )


def _check_trust(config: ProjectConfig) -> None:
    privacy: Any = config.privacy
    if privacy is None or privacy.trust == "local":
        return
    if privacy.trust == "distributed":
        _check_secure(config)
        return
    if privacy.mechanism != "discrete_gaussian":
        raise PrivacyError(
            f"privacy.mechanism = {privacy.mechanism!r} with trust = 'central' is "
            "float noise from a seed, for simulations. A federation that is served "
            'needs mechanism = "discrete_gaussian": exact, from the aggregator\'s key.'
        )


def _check_secure(config: ProjectConfig) -> None:
    """Refuses what would show the operator more than the sum, or needs too many."""
    service, threshold = config.service, least_reports(config)
    if config.evaluation.held_out_fraction is not None:
        raise ConfigError(
            "evaluation.held_out_fraction shows the operator each partner's scores by "
            "itself, which secure aggregation must not. Leave it out; with "
            "privacy.metrics_share scores come along in the same noised sum."
        )
    if service is None:
        return
    if config.rounds.num_regions is not None and service.report_goal is not None:
        raise ConfigError(
            f"service.report_goal = {service.report_goal}, and each region asks all of "
            "its partners. Leave it out."
        )
    if service.least_reports in (None, threshold):
        return
    raise ConfigError(
        f"service.least_reports = {service.least_reports}, and secure aggregation "
        f"opens a sum of at least {threshold}. Leave it out, and set rounds.threshold "
        "instead."
    )
