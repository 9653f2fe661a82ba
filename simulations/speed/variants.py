"""The rounds that fedtrain is measured with: plain, and with privacy.

Mechanisms are taken off their descriptions, so that no ledger is asked: what is
compared is the arithmetic.
"""

from collections.abc import Callable
from typing import Any

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Batching, Epochs, Poisson
from fedtrain.client_work.client_work import ClientWork
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests
from fedtrain.models.model import Batch, ModelWeights
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.privacy.gaussian import gaussian_mechanism
from fedtrain.privacy.ghost_clipping import clipped_sum
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.round import Round
from simulations.speed.models import model_of
from simulations.speed.workload import Workload

_CLIPPING_NORM, _NOISE_MULTIPLIER = 1.0, 0.1


def plain(workload: Workload) -> Round:
    """FedAvg, weighted by rows; rows in their order, nothing reported."""
    return fed_avg(_sgd(workload, _in_order(workload)))


def client_dp(workload: Workload) -> Round:
    """The same with each client's update clipped and noise on the sum."""
    mechanism = gaussian_mechanism(
        clipping_norm=_CLIPPING_NORM, noise_multiplier=_NOISE_MULTIPLIER
    )
    mean = mean_over_expected_cohort(workload.num_clients)
    aggregator = chain(mean, mechanism._replace(mechanisms=()))
    return fed_avg(_sgd(workload, _in_order(workload)), aggregator=aggregator)


def poisson(workload: Workload) -> Round:
    """FedAvg on Poisson batches: what example-level DP is compared with."""
    return fed_avg(_sgd(workload, Poisson(**_sampling(workload))))


def example_clipping(workload: Workload) -> Round:
    """DP-SGD's steps without the noise."""
    model, optimizer = model_of(workload), sgd(workload.learning_rate)
    work = _sgd(workload, Poisson(**_sampling(workload)))

    def step(carry: Any, batch: Batch) -> Any:
        total, _ = clipped_sum(
            model, carry.weights, batch, carry.seed, clipping_norm=_CLIPPING_NORM
        )
        mean = nests.scale(total, 1.0 / workload.batch_size)
        trainable, slots = optimizer.update(carry.weights.trainable, carry.slots, mean)
        weights = ModelWeights(trainable, carry.weights.state)
        return carry._replace(weights=weights, slots=slots, step=carry.step + 1)

    return fed_avg(work._replace(step=step))


def example_dp(workload: Workload) -> Round:
    """DP-SGD at every client."""
    work = dp_sgd(
        model_of(workload),
        sgd(workload.learning_rate),
        clipping_norm=_CLIPPING_NORM,
        noise_multiplier=_NOISE_MULTIPLIER,
        expected_batch_size=workload.batch_size,
        **_sampling(workload),
    )
    return fed_avg(work._replace(mechanisms=()))


VARIANTS: dict[str, Callable[[Workload], Round]] = {
    "plain": plain,
    "client_dp": client_dp,
    "poisson": poisson,
    "example_clipping": example_clipping,
    "example_dp": example_dp,
}


def round_of(workload: Workload, variant: str) -> Round:
    """The round of ``workload`` in one of ``VARIANTS``."""
    return VARIANTS[variant](workload)


def _in_order(workload: Workload) -> Epochs:
    return Epochs(batch_size=workload.batch_size, shuffle=False)


def _sampling(workload: Workload) -> dict[str, Any]:
    """As many steps, of as many rows on average, as one pass in batches."""
    steps = round(workload.num_rows()[0] / workload.batch_size)
    return {"sampling_rate": 1.0 / steps, "local_steps": steps}


def _sgd(workload: Workload, batching: Batching) -> ClientWork:
    optimizer = sgd(workload.learning_rate)
    return local_sgd(model_of(workload), optimizer, batching, reports_metrics=False)
