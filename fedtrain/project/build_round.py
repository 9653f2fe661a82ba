"""The round of a project file without privacy, also the baseline of one with."""

from fedtrain.aggregation.mean import unweighted_mean, weighted_mean
from fedtrain.client_work.batching import Batching, Epochs, Poisson, Steps
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.models.model import Model
from fedtrain.project.build_optimizers import optimizer_of
from fedtrain.project.build_update_compression import compressed
from fedtrain.project.config import ClientSection, ProjectConfig
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round


def plain_round(
    config: ProjectConfig, model: Model, *, reports_metrics: bool = True
) -> Round:
    """FedAvg, FedProx or FedSGD as ``[rounds]`` says, with nothing protected."""
    mean = unweighted_mean() if config.rounds.weighted is False else weighted_mean()
    round_ = fed_avg(
        plain_work(config, model, reports_metrics=reports_metrics),
        aggregator=compressed(mean, config),
        server_optimizer=optimizer_of(config.server),
    )
    return round_._replace(name=config.rounds.algorithm)


def plain_work(
    config: ProjectConfig, model: Model, *, reports_metrics: bool = True
) -> ClientWork:
    """Local training as ``[client]`` says."""
    return local_sgd(
        model,
        optimizer_of(config.client),
        batching_of(config),
        proximal_strength=config.rounds.proximal_strength or 0.0,
        reports_metrics=reports_metrics,
    )


def batching_of(config: ProjectConfig) -> Batching:
    """Which rows each local step sees."""
    client = config.client
    if config.privacy is not None and config.privacy.unit != "client":
        return Poisson(
            sampling_rate=client.sampling_rate or 1.0,
            local_steps=client.local_steps or 1,
        )
    if config.rounds.algorithm == "fed_sgd":
        return Epochs(batch_size=client.max_rows or 1, local_epochs=1, max_steps=1)
    return _passes(client)


def _passes(client: ClientSection) -> Batching:
    if client.local_steps is not None:
        return Steps(batch_size=client.batch_size or 1, local_steps=client.local_steps)
    return Epochs(
        batch_size=client.batch_size or 1, local_epochs=client.local_epochs or 1
    )
