"""Promises in ``[privacy]`` that the rest of a project file does not keep."""

from collections.abc import Iterator

from fedtrain.project.config import (
    ClientSection,
    DataSection,
    ExportSection,
    PrivacySection,
    ProjectConfig,
)
from fedtrain.project.findings import missing, superfluous
from fedtrain.project.problems import Problem


def privacy_contradictions(
    config: ProjectConfig, privacy: PrivacySection
) -> Iterator[Problem]:
    """Promises that the rest of the file does not keep."""
    if privacy.trust == "distributed":
        yield Problem(
            key="privacy.trust",
            text="distributed noise needs secure aggregation, which is not there yet",
            value=privacy.trust,
            allowed='"local" (each client adds its own noise) or "central"',
        )
    if privacy.noise_multiplier is None and privacy.target_epsilon is None:
        yield missing(
            "privacy.target_epsilon",
            "give it (the noise is calibrated to it), or privacy.noise_multiplier",
        )
    if config.rounds.update_compression is not None and privacy.trust != "local":
        yield Problem(
            key="rounds.update_compression",
            text="noise on a sum relies on the norm of each update, which compression "
            "may lengthen after the update was clipped",
            value=config.rounds.update_compression,
            allowed='leave it out, or privacy.trust = "local", where the noise is in '
            "the update before it is compressed",
        )
    if privacy.unit == "client":
        yield from _client_unit(config, privacy)
    else:
        yield from _row_unit(config, privacy)
    if config.service is not None:
        yield from _kept_back(config.export)


def _kept_back(export: ExportSection) -> Iterator[Problem]:
    for key in ("evaluation_epsilon", "calibration_epsilon"):
        value = getattr(export, key)
        if value is not None:
            yield superfluous(
                f"export.{key}",
                value,
                "rows of a served run are with its partners, where no export can ask "
                "them: it would only make the noise larger; export.public_rows is free",
            )


def _client_unit(config: ProjectConfig, privacy: PrivacySection) -> Iterator[Problem]:
    if privacy.trust == "local":
        yield Problem(
            key="privacy.trust",
            text='unit = "client" is protected by noise on the sum over clients',
            value=privacy.trust,
            allowed='"central"; or unit = "example" or "entity" with trust = "local"',
        )
    if privacy.sampling != config.rounds.sampler:
        yield Problem(
            key="privacy.sampling",
            text="amplification is claimed by the sampler that earns it, and only by it"
            f'; rounds.sampler is "{config.rounds.sampler}"',
            value=privacy.sampling,
            allowed=f'"{config.rounds.sampler}", or change rounds.sampler',
        )
    fixed_size = config.rounds.sampler in ("uniform", "cyclic")
    if fixed_size and privacy.neighboring_relation == "add_or_remove_one":
        yield Problem(
            key="privacy.neighboring_relation",
            text=f'rounds.sampler = "{config.rounds.sampler}" fills every cohort: with '
            "one client fewer another is drawn instead, and twice the bound moves",
            value=privacy.neighboring_relation,
            allowed='"replace_special" (one client\'s contribution is replaced by zero;'
            ' who the clients are is public), or "replace_one"',
        )
    if privacy.cohort_is_hidden and config.rounds.sampler != "poisson":
        yield superfluous(
            "privacy.cohort_is_hidden",
            privacy.cohort_is_hidden,
            'a hidden cohort amplifies only with rounds.sampler = "poisson"',
        )
    if config.rounds.weighted and privacy.max_weight is None:
        yield missing(
            "privacy.max_weight",
            "a weighted mean under client-level DP needs a public largest weight",
        )
    correlated = privacy.mechanism in ("tree", "banded")
    if correlated and config.rounds.sampler not in ("cyclic", "full"):
        yield Problem(
            key="rounds.sampler",
            text=f'mechanism = "{privacy.mechanism}" needs a participation pattern',
            value=config.rounds.sampler,
            allowed='"cyclic" (or "full")',
        )


def _row_unit(config: ProjectConfig, privacy: PrivacySection) -> Iterator[Problem]:
    client = config.client
    for key in ("batch_size", "local_epochs"):
        if getattr(client, key) is not None:
            yield superfluous(
                f"client.{key}",
                getattr(client, key),
                f'unit = "{privacy.unit}" samples rows by client.sampling_rate: a '
                "batch size over a private count is no public rate",
            )
    yield from _row_sampling(client, privacy)
    if privacy.trust == "central":
        yield from _one_step(config)
    elif client.local_steps is None:
        yield missing("client.local_steps", "DP-SGD steps of each client in a round")
    if privacy.mechanism != "gaussian":
        yield superfluous(
            "privacy.mechanism",
            privacy.mechanism,
            f'unit = "{privacy.unit}" has the "gaussian" mechanism',
        )
    if config.rounds.weighted:
        yield Problem(
            key="rounds.weighted",
            text="the exact row counts of clients are not protected by this unit",
            value=True,
            allowed="false, or leave it out",
        )
    if privacy.unit == "entity":
        yield from _entities(config.data, privacy)


def _row_sampling(client: ClientSection, privacy: PrivacySection) -> Iterator[Problem]:
    if privacy.cohort_is_hidden:
        yield superfluous(
            "privacy.cohort_is_hidden",
            privacy.cohort_is_hidden,
            f'unit = "{privacy.unit}" is amplified by the sampling of rows',
        )
    if privacy.sampling not in ("poisson", "full"):
        yield Problem(
            key="privacy.sampling",
            text=f'how a client draws its rows, with unit = "{privacy.unit}"',
            value=privacy.sampling,
            allowed='"poisson" or "full" (all rows in every step)',
        )
    if privacy.sampling == "poisson" and client.sampling_rate is None:
        yield missing(
            "client.sampling_rate", "the public rate at which a client samples its rows"
        )
    if privacy.sampling == "full" and client.sampling_rate is not None:
        yield superfluous(
            "client.sampling_rate",
            client.sampling_rate,
            'privacy.sampling = "full" takes all rows in every step',
        )
    if client.expected_batch_size is None:
        yield missing(
            "client.expected_batch_size",
            "the public number that a step's sum of gradients is divided by",
        )


def _one_step(config: ProjectConfig) -> Iterator[Problem]:
    if config.rounds.algorithm != "fed_sgd":
        yield Problem(
            key="rounds.algorithm",
            text="central noise protects a row only where a round is one step",
            value=config.rounds.algorithm,
            allowed='"fed_sgd"; or privacy.trust = "local" for more local steps',
        )
    if config.client.local_steps not in (None, 1):
        yield Problem(
            key="client.local_steps",
            text="central noise protects a row only where a round is one step",
            value=config.client.local_steps,
            allowed='1, or leave it out; privacy.trust = "local" allows more',
        )


def _entities(data: DataSection, privacy: PrivacySection) -> Iterator[Problem]:
    if data.entity is None and data.path is not None:
        yield missing("data.entity", 'unit = "entity" needs the id column')
    if privacy.max_rows_per_entity is None:
        yield missing(
            "privacy.max_rows_per_entity", "the most rows of an entity in one step"
        )
