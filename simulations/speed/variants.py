"""The rounds that fedtrain is measured with: plain, and with client-level privacy.

The mechanism is taken off its description, so that no ledger is asked: what is compared
is the arithmetic. Example-level privacy is measured by ``example_privacy``.
"""

from collections.abc import Callable

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round
from simulations.speed.models import model_of
from simulations.speed.workload import Workload

_CLIPPING_NORM, _NOISE_MULTIPLIER = 1.0, 0.1


def plain(workload: Workload) -> Round:
    """FedAvg, weighted by rows; rows in their order, nothing reported."""
    return fed_avg(_sgd(workload))


def client_dp(workload: Workload) -> Round:
    """The same with each client's update clipped and noise on the sum."""
    mechanism = gaussian_mechanism(
        clipping_norm=_CLIPPING_NORM, noise_multiplier=_NOISE_MULTIPLIER
    )
    mean = mean_over_expected_cohort(workload.num_clients)
    aggregator = chain(mean, mechanism._replace(mechanisms=()))
    return fed_avg(_sgd(workload), aggregator=aggregator)


VARIANTS: dict[str, Callable[[Workload], Round]] = {
    "plain": plain,
    "client_dp": client_dp,
}


def round_of(workload: Workload, variant: str) -> Round:
    """The round of ``workload`` in one of ``VARIANTS``."""
    return VARIANTS[variant](workload)


def _sgd(workload: Workload) -> ClientWork:
    batching = Epochs(batch_size=workload.batch_size, shuffle=False)
    optimizer = sgd(workload.learning_rate)
    return local_sgd(model_of(workload), optimizer, batching, reports_metrics=False)
