"""The rounds that fedtrain is measured with: plain, and with privacy."""

from collections.abc import Callable

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round
from simulations.speed.models import model_of
from simulations.speed.workload import Workload


def plain(workload: Workload) -> Round:
    """FedAvg, weighted by rows; rows in their order, nothing reported."""
    batching = Epochs(batch_size=workload.batch_size, shuffle=False)
    optimizer = sgd(workload.learning_rate)
    work = local_sgd(model_of(workload), optimizer, batching, reports_metrics=False)
    return fed_avg(work)


def client_dp(workload: Workload) -> Round:
    """The same with each client's update clipped and noise on the sum."""
    batching = Epochs(batch_size=workload.batch_size, shuffle=False)
    optimizer = sgd(workload.learning_rate)
    work = local_sgd(model_of(workload), optimizer, batching, reports_metrics=False)
    aggregator = chain(
        mean_over_expected_cohort(workload.num_clients),
        gaussian_mechanism(clipping_norm=1.0, noise_multiplier=0.1),
    )
    return fed_avg(work, aggregator=aggregator)


VARIANTS: dict[str, Callable[[Workload], Round]] = {
    "plain": plain,
    "client_dp": client_dp,
}


def round_of(workload: Workload, variant: str) -> Round:
    """The round of ``workload`` in one of ``VARIANTS``."""
    return VARIANTS[variant](workload)
