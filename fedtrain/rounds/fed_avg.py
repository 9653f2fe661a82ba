"""Federated averaging, and the algorithms that differ from it by one argument."""

from fedtrain.aggregation.aggregator import Aggregator
from fedtrain.aggregation.mean import weighted_mean
from fedtrain.client_work.batching import Batching, Epochs
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import validate
from fedtrain.models.model import Model
from fedtrain.optimizers.optimizer import Optimizer
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.round import Round, averaging_round


def fed_avg(
    client_work: ClientWork,
    *,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Round:
    """Federated averaging (McMahan et al., 2017, https://arxiv.org/abs/1602.05629).

    Args:
      client_work: What each client computes, such as ``local_sgd(...)``.
      aggregator: The mean, by default weighted by the clients' numbers of rows.
      server_optimizer: By default SGD with learning rate 1: the plain average. Momentum
        makes it FedAvgM, ``adam``, ``yogi`` and ``adagrad`` make it FedAdam, FedYogi
        and FedAdagrad (Reddi et al., 2021).
    """
    return averaging_round(
        client_work,
        aggregator=aggregator or weighted_mean(),
        server_optimizer=server_optimizer or sgd(1.0),
        name="fed_avg",
    )


def fed_prox(
    model: Model,
    client_optimizer: Optimizer,
    batching: Batching,
    *,
    proximal_strength: float,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer | None = None,
) -> Round:
    """FedAvg with a proximal term on the clients (Li et al., 2020, FedProx)."""
    validate.non_negative(proximal_strength=proximal_strength)
    work = local_sgd(
        model, client_optimizer, batching, proximal_strength=proximal_strength
    )
    round_ = fed_avg(work, aggregator=aggregator, server_optimizer=server_optimizer)
    return round_._replace(name="fed_prox")


def fed_sgd(
    model: Model,
    *,
    max_rows: int,
    aggregator: Aggregator | None = None,
    server_optimizer: Optimizer,
) -> Round:
    """FedSGD: each client sends the gradient of one batch of all its rows.

    Args:
      model: What is trained.
      max_rows: Largest number of rows used of a client.
      aggregator: The mean, by default weighted by the clients' numbers of rows.
      server_optimizer: Takes the averaged gradient.
    """
    one_step = Epochs(batch_size=max_rows, local_epochs=1, max_steps=1)
    round_ = fed_avg(
        local_sgd(model, sgd(1.0), one_step),
        aggregator=aggregator,
        server_optimizer=server_optimizer,
    )
    return round_._replace(name="fed_sgd")
