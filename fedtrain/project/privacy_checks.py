"""Promises in ``[privacy]`` that the rest of a project file does not keep."""

from collections.abc import Iterator

from fedtrain.project.config import (
    ClientSection,
    DataSection,
    ExportSection,
    PrivacySection,
    ProjectConfig,
    RoundsSection,
    RuntimeSection,
)
from fedtrain.project.findings import missing, superfluous
from fedtrain.project.problems import Problem


def privacy_contradictions(
    config: ProjectConfig, privacy: PrivacySection
) -> Iterator[Problem]:
    """Promises that the rest of the file does not keep."""
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
    if privacy.trust == "distributed":
        yield from _distributed(config, privacy)
    integer = privacy.trust == "distributed" or privacy.mechanism == "discrete_gaussian"
    if privacy.metrics_share is not None and (
        privacy.unit == "client" or privacy.trust == "local" or not integer
    ):
        yield superfluous(
            "privacy.metrics_share",
            privacy.metrics_share,
            "loss and metrics come along in sums of rows' gradients in whole numbers: "
            'unit "example" or "entity", trust "distributed" or "discrete_gaussian"',
        )
    if privacy.unit == "client":
        yield from _client_unit(config, privacy)
    else:
        yield from _row_unit(config, privacy)
    if config.service is not None:
        yield from _kept_back(
            config.export,
            "rows of a served run are with its partners, where no export can ask them",
        )
    elif privacy.trust == "distributed":
        yield from _kept_back(
            config.export,
            'with trust = "distributed" nobody may see exact sums over rows, so no '
            "export can ask them",
        )


def _kept_back(export: ExportSection, why: str) -> Iterator[Problem]:
    for key in ("evaluation_epsilon", "calibration_epsilon"):
        value = getattr(export, key)
        if value is not None:
            yield superfluous(
                f"export.{key}",
                value,
                f"{why}: it would only make the noise larger; export.public_rows is "
                "free",
            )


def secure_contradictions(config: ProjectConfig) -> Iterator[Problem]:
    """Secure aggregation without what it needs, or its numbers without it."""
    rounds = config.rounds
    trust = config.privacy.trust if config.privacy else None
    if rounds.secure_aggregation and trust != "distributed":
        yield Problem(
            key="privacy.trust",
            text="secure aggregation adds up clipped, noised whole numbers",
            value=trust or ...,
            allowed='"distributed"; or leave out rounds.secure_aggregation',
        )
    if rounds.secure_aggregation and rounds.sampler == "poisson":
        yield Problem(
            key="rounds.sampler",
            text="the threshold of secure aggregation is of a cohort of known size",
            value=rounds.sampler,
            allowed='"full", "uniform" or "cyclic"',
        )
    if rounds.secure_aggregation and rounds.update_compression is not None:
        yield superfluous(
            "rounds.update_compression",
            rounds.update_compression,
            "a masked update cannot be made shorter, and one that was has another norm",
        )
    if rounds.secure_aggregation:
        yield from _on_the_host(config.runtime)
    else:
        yield from _without_sessions(rounds)
    if rounds.num_regions is not None:
        yield from _regions(rounds)


def _on_the_host(runtime: RuntimeSection) -> Iterator[Problem]:
    """Refuses what draws no exact noise."""
    if runtime.kind == "tff":
        yield Problem(
            key="runtime.kind",
            text="whole numbers are drawn and rounded on the host, outside of TFF",
            value="tff",
            allowed='"compiled", or "eager" (with the masks of the whole protocol)',
        )
    if runtime.strategy in ("xla", "stacked_xla"):
        yield Problem(
            key="runtime.strategy",
            text="whole numbers are drawn and rounded on the host, outside of XLA",
            value=runtime.strategy,
            allowed='"graph" or "stacked", or leave it out',
        )


def _without_sessions(rounds: RoundsSection) -> Iterator[Problem]:
    """Refuses numbers of sessions that there are none of."""
    given = {"threshold": rounds.threshold, "num_regions": rounds.num_regions}
    if rounds.num_colluding != 1:
        given["num_colluding"] = rounds.num_colluding
    for key, value in given.items():
        if value is not None:
            why = "rounds.secure_aggregation is false"
            yield superfluous(f"rounds.{key}", value, why)


def _regions(rounds: RoundsSection) -> Iterator[Problem]:
    if rounds.sampler != "full":
        yield Problem(
            key="rounds.sampler",
            text="a region has a threshold of its own, so all of its clients are asked",
            value=rounds.sampler,
            allowed='"full"; or leave out rounds.num_regions',
        )


def _distributed(config: ProjectConfig, privacy: PrivacySection) -> Iterator[Problem]:
    if not config.rounds.secure_aggregation:
        yield Problem(
            key="rounds.secure_aggregation",
            text="a share of the noise protects nobody whose contribution is seen",
            value=False,
            allowed='true; or privacy.trust = "local" (each client adds its own noise) '
            'or "central"',
        )
    adapts = privacy.mechanism == "adaptive_gaussian" and privacy.unit != "client"
    if privacy.mechanism not in ("gaussian", "discrete_gaussian") and not adapts:
        yield Problem(
            key="privacy.mechanism",
            text='shares of noise, trust = "distributed", are added independently',
            value=privacy.mechanism,
            allowed='"discrete_gaussian", or leave it out; for rows or entities also '
            '"adaptive_gaussian"',
        )
    if privacy.cohort_is_hidden:
        yield superfluous(
            "privacy.cohort_is_hidden",
            privacy.cohort_is_hidden,
            "the aggregator, who is not trusted, knows who takes part",
        )


def _client_unit(config: ProjectConfig, privacy: PrivacySection) -> Iterator[Problem]:
    if privacy.trust == "local":
        yield Problem(
            key="privacy.trust",
            text='unit = "client" is protected by noise on the sum over clients',
            value=privacy.trust,
            allowed='"central" or "distributed"; or unit = "example" or "entity" with '
            'trust = "local"',
        )
    if privacy.sampling != config.rounds.sampler:
        yield Problem(
            key="privacy.sampling",
            text="amplification is claimed by the sampler that earns it, and only by it"
            f'; rounds.sampler is "{config.rounds.sampler}"',
            value=privacy.sampling,
            allowed=f'"{config.rounds.sampler}", or change rounds.sampler',
        )
    yield from _known_clients(config.rounds, privacy)
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
    if privacy.max_weight is not None and not config.rounds.weighted:
        yield superfluous(
            "privacy.max_weight",
            privacy.max_weight,
            "rounds.weighted is not true, so all clients weigh the same",
        )
    correlated = privacy.mechanism in ("tree", "banded")
    if correlated and config.rounds.sampler not in ("cyclic", "full"):
        yield Problem(
            key="rounds.sampler",
            text=f'mechanism = "{privacy.mechanism}" needs a participation pattern',
            value=config.rounds.sampler,
            allowed='"cyclic" (or "full")',
        )


def _known_clients(rounds: RoundsSection, privacy: PrivacySection) -> Iterator[Problem]:
    """Refuses a client more or less where that changes what becomes of the others."""
    if rounds.sampler in ("uniform", "cyclic"):
        why = f'rounds.sampler = "{rounds.sampler}" fills every cohort: with '
        why += "one client fewer another is drawn instead, and twice the bound moves"
    elif rounds.num_regions is not None:
        why = "regions are dealt by the order of the clients: with one client fewer "
        why += "others change their region, and more than the bound moves"
    elif rounds.secure_aggregation:
        why = "each client adds a share of the noise: with one client fewer a sum has "
        why += "less noise, and its spread alone would tell"
    else:
        return
    if privacy.neighboring_relation == "add_or_remove_one":
        yield Problem(
            key="privacy.neighboring_relation",
            text=why,
            value=privacy.neighboring_relation,
            allowed='"replace_special" (one client\'s contribution is replaced by zero;'
            ' who the clients are is public), or "replace_one" (the other client takes '
            "its id)",
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
    if privacy.trust != "local":
        yield from _one_step(config)
    elif client.local_steps is None:
        yield missing("client.local_steps", "DP-SGD steps of each client in a round")
    integer = privacy.mechanism == "discrete_gaussian" and privacy.trust != "local"
    integer |= privacy.mechanism == "adaptive_gaussian" and (
        privacy.trust == "distributed"
    )
    if privacy.mechanism != "gaussian" and not integer:
        yield superfluous(
            "privacy.mechanism",
            privacy.mechanism,
            f'unit = "{privacy.unit}" has the "gaussian" mechanism, or with noise on '
            'the sum the "discrete_gaussian"',
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
            text="noise on the sum protects a row only where a round is one step",
            value=config.rounds.algorithm,
            allowed='"fed_sgd"; or privacy.trust = "local" for more local steps',
        )
    if config.client.local_steps not in (None, 1):
        yield Problem(
            key="client.local_steps",
            text="noise on the sum protects a row only where a round is one step",
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
