"""Keys of a project file that contradict each other, found before anything is read."""

from collections.abc import Iterator
from pathlib import Path

from fedtrain.project.compression_checks import compression_contradictions
from fedtrain.project.config import (
    ClientSection,
    DataSection,
    ModelSection,
    OptimizerSection,
    PrivacySection,
    ProjectConfig,
    RoundsSection,
)
from fedtrain.project.evaluation_checks import evaluation_contradictions
from fedtrain.project.findings import exactly_one, missing, needs, superfluous
from fedtrain.project.privacy_checks import (
    privacy_contradictions,
    secure_contradictions,
)
from fedtrain.project.problems import Problem

PARTITION_NEEDS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "iid": ("num_clients",),
    "dirichlet": ("num_clients", "concentration"),
    "labels_per_client": ("num_clients", "num_labels"),
    "quantity_skew": ("num_clients", "concentration"),
    "by_column": ("column",),
}
SAMPLER_NEEDS: dict[str | None, tuple[str, ...]] = {
    "full": (),
    "uniform": ("cohort_size",),
    "poisson": ("sampling_rate",),
    "cyclic": ("cohort_size", "min_separation"),
}
COMPRESSION_NEEDS: dict[str | None, tuple[str, ...]] = {
    None: (),
    "int8": (),
    "int4": (),
    "top_k": ("kept_fraction",),
}


def contradictions(config: ProjectConfig) -> list[Problem]:
    """Every contradiction within ``config``, in the order of its sections."""
    problems = [
        *_data(config.data),
        *_model(config.model),
        *_rounds(config.rounds),
        *_client(config.client, config.rounds, config.privacy),
        *_optimizer("client", config.client),
        *_optimizer("server", config.server),
        *compression_contradictions(config),
        *evaluation_contradictions(config),
        *secure_contradictions(config),
    ]
    if config.privacy is not None:
        problems += privacy_contradictions(config, config.privacy)
    return problems


def _data(data: DataSection) -> Iterator[Problem]:
    yield from exactly_one("data", data, "name", "path")
    # A packed folder and a schema name the columns themselves.
    path = Path(data.path or "")
    is_folder = not path.suffix and "://" not in (data.path or "")
    named_there = data.schema_path or is_folder
    # Each file that a pattern names is a client; TFF's files hold clients.
    has_clients = "*" in path.name or path.suffix in (".h5", ".hdf5")
    if data.path and not data.label and not named_there:
        yield missing("data.label", "a file needs the name of its label column")
    if data.path and not (data.client or data.partition or named_there or has_clients):
        yield missing(
            "data.client",
            "a file needs the column that names the client of a row, or a partition",
        )
    if data.client and data.partition:
        yield superfluous("data.partition", data.partition, "data.client says it")
    if data.test_path and data.test_fraction:
        yield superfluous(
            "data.test_fraction", data.test_fraction, "data.test_path is given"
        )
    yield from needs("data", data, "partition", PARTITION_NEEDS)


def _model(model: ModelSection) -> Iterator[Problem]:
    yield from exactly_one("model", model, "name", "path")


def _rounds(rounds: RoundsSection) -> Iterator[Problem]:
    yield from needs("rounds", rounds, "sampler", SAMPLER_NEEDS)
    yield from needs("rounds", rounds, "update_compression", COMPRESSION_NEEDS)
    if rounds.algorithm == "fed_prox" and rounds.proximal_strength is None:
        yield missing("rounds.proximal_strength", "fed_prox needs it (FedProx's mu)")
    if rounds.algorithm != "fed_prox" and rounds.proximal_strength is not None:
        yield superfluous(
            "rounds.proximal_strength",
            rounds.proximal_strength,
            'only algorithm = "fed_prox" has it',
        )


def _client(
    client: ClientSection, rounds: RoundsSection, privacy: PrivacySection | None
) -> Iterator[Problem]:
    yield from _client_rate(client, rounds)
    rows = privacy is not None and privacy.unit != "client"
    if rows:
        return
    for key in ("sampling_rate", "expected_batch_size"):
        if getattr(client, key) is not None:
            yield superfluous(
                f"client.{key}",
                getattr(client, key),
                'it goes with privacy.unit = "example" or "entity"',
            )
    if rounds.algorithm == "fed_sgd":
        yield from _one_batch_of_all(client)
        return
    if client.batch_size is None:
        yield missing("client.batch_size", "rows in a local batch")
    if (client.local_epochs is None) == (client.local_steps is None):
        yield Problem(
            key="client.local_epochs",
            text="give either client.local_epochs or client.local_steps",
            value=client.local_epochs or ...,
            allowed="one of the two, a whole number of at least 1",
        )


def _client_rate(client: ClientSection, rounds: RoundsSection) -> Iterator[Problem]:
    if rounds.algorithm == "fed_sgd" and client.learning_rate is not None:
        yield superfluous(
            "client.learning_rate",
            client.learning_rate,
            "fed_sgd's clients send a gradient; server.learning_rate is its rate",
        )
    if rounds.algorithm != "fed_sgd" and client.learning_rate is None:
        yield missing("client.learning_rate", "the rate of local training")


def _one_batch_of_all(client: ClientSection) -> Iterator[Problem]:
    if client.max_rows is None:
        yield missing("client.max_rows", "fed_sgd needs the most rows of a client")
    for key in ("batch_size", "local_epochs", "local_steps"):
        if getattr(client, key) is not None:
            yield superfluous(
                f"client.{key}",
                getattr(client, key),
                "fed_sgd takes one gradient of all rows of a client",
            )


def _optimizer(section: str, optimizer: OptimizerSection) -> Iterator[Problem]:
    adaptive = ("beta_1", "beta_2", "epsilon")
    wrong = ("momentum", "weight_decay") if optimizer.optimizer != "sgd" else adaptive
    if optimizer.optimizer == "adagrad":
        wrong = (*wrong, "beta_2")
    for key in wrong:
        if getattr(optimizer, key):
            yield superfluous(
                f"{section}.{key}",
                getattr(optimizer, key),
                f'optimizer = "{optimizer.optimizer}" does not have it',
            )
    schedule = optimizer.schedule
    if schedule.kind == "exponential" and schedule.decay is None:
        yield missing(f"{section}.schedule.decay", "exponential needs it")
    if schedule.kind == "cosine" and schedule.num_steps is None:
        yield missing(f"{section}.schedule.num_steps", "cosine needs it")
