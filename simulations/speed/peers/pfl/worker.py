"""pfl-research: FederatedAveraging on its SimulatedBackend, with PyTorch."""

import os
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

from simulations.speed.peers.pfl.networks import network, weights_of
from simulations.speed.session import Session, arguments
from simulations.speed.workload import Workload


class Rounds(TrainingProcessCallback):
    """Hands the loop's control to the session between two iterations."""

    def __init__(self, session: Session, module: Any) -> None:
        self._session, self._module = session, module

    def on_train_begin(self, *, model: Any) -> Metrics:
        """Waits for the first round."""
        self._session.before_round(lambda: weights_of(self._module))
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Notes the round; stops the run when no further one is wanted."""
        self._session.after_round()
        goes_on = self._session.before_round(lambda: weights_of(self._module))
        return not goes_on, Metrics()


def main() -> None:
    """Serves rounds until standard input ends."""
    session = Session()
    workload, options = arguments()
    torch.set_num_threads(options.get("threads", os.cpu_count()))
    module = network(workload)
    model = PyTorchModel(
        module,
        torch.optim.SGD,
        torch.optim.SGD(module.parameters(), lr=1.0),
        amp_dtype=torch.bfloat16 if options.get("bfloat16") else None,
    )
    data = _federated(workload)
    backend = SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()])
    session.ready(versions=_versions(), settings=options)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=10**6,
            evaluation_frequency=10**7,
            train_cohort_size=workload.num_clients,
            val_cohort_size=None,
        ),
        backend,
        model,
        NNTrainHyperParams(
            local_batch_size=workload.batch_size,
            local_num_epochs=1,
            local_learning_rate=workload.learning_rate,
        ),
        callbacks=[Rounds(session, module)],
        send_metrics_to_platform=False,
    )


def _federated(workload: Workload) -> FederatedDataset:
    """Users whose rows are tensors already, which pfl takes without a copy."""
    features = torch.from_numpy(np.array(workload.features))
    if features.ndim == 4:
        features = features.permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(workload.labels.astype(np.int64))
    users = {}
    for i in range(workload.num_clients):
        rows = slice(int(workload.offsets[i]), int(workload.offsets[i + 1]))
        users[str(i)] = Dataset([features[rows], labels[rows]], user_id=str(i))
    sampler = get_user_sampler("minimize_reuse", list(users))
    return FederatedDataset(users.__getitem__, sampler)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "pfl": version("pfl"),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
