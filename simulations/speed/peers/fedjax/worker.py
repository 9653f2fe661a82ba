"""FedJAX: federated averaging on its for_each_client, compiled by jit."""

import platform
from importlib.metadata import version
from typing import Any

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms.fed_avg import create_train_for_each_client

from simulations.speed.peers.fedjax.networks import logits
from simulations.speed.session import Session, arguments
from simulations.speed.workload import Array, Workload


def main() -> None:
    """Serves rounds until standard input ends."""
    session = Session()
    workload, options = arguments()
    fedjax.set_for_each_client_backend(options.get("backend", "jit"))
    system = _Federation(workload, options.get("unroll", 1))
    session.ready(versions=_versions(), settings=options)
    session.run(system.one_round, system.weights)


class _Federation:
    """FedJAX's federated averaging with padded batches.

    Its ``federated_averaging`` fills a client's last batch with rows it has had, which
    would be another update; everything else is as there.
    """

    def __init__(self, workload: Workload, unroll: int) -> None:
        self._train = create_train_for_each_client(
            fedjax.grad(_per_example_loss(workload, unroll)),
            fedjax.optimizers.sgd(workload.learning_rate),
        )
        self._server = fedjax.optimizers.sgd(1.0)
        self._batching = fedjax.PaddedBatchHParams(batch_size=workload.batch_size)
        self._clients = []
        for i in range(workload.num_clients):
            features, labels = workload.client(i)
            rows = fedjax.ClientDataset({"x": features, "y": labels})
            self._clients.append((str(i), rows, jax.random.PRNGKey(i)))
        self._params = [jnp.asarray(array) for array in workload.weights]
        self._slots = self._server.init(self._params)

    def one_round(self) -> None:
        """One round, waited for."""
        sizes = {name: len(rows) for name, rows, _ in self._clients}
        batches = [
            (name, rows.padded_batch(self._batching), key)
            for name, rows, key in self._clients
        ]
        total = fedjax.tree_util.tree_zeros_like(self._params)
        for name, update in self._train(self._params, batches):
            weighted = fedjax.tree_util.tree_weight(update, sizes[name])
            total = fedjax.tree_util.tree_add(total, weighted)
        mean = fedjax.tree_util.tree_inverse_weight(total, sum(sizes.values()))
        self._slots, self._params = self._server.apply(mean, self._slots, self._params)
        jax.block_until_ready(self._params)

    def weights(self) -> list[Array]:
        """The global weights."""
        return [np.asarray(leaf) for leaf in self._params]


def _per_example_loss(workload: Workload, unroll: int) -> Any:
    """Losses whose mean over a batch's real rows is that of the other systems."""

    def loss(params: Any, batch: Any, rng: Any) -> Any:
        del rng
        scores = jax.nn.log_softmax(logits(workload, params, batch["x"], unroll=unroll))
        losses = -jnp.take_along_axis(scores, batch["y"][..., None], axis=-1)[..., 0]
        if workload.kind != "characters":
            return losses
        mask = batch["__mask__"]
        real = (batch["y"] != 0) * mask[:, None]
        rows = jnp.maximum(jnp.sum(mask), 1)
        return jnp.sum(losses * real, -1) * rows / jnp.maximum(jnp.sum(real), 1)

    return loss


def _versions() -> dict[str, str]:
    names = ("fedjax", "jax", "jaxlib")
    own = {name: version(name) for name in names}
    return {"python": platform.python_version(), **own}


if __name__ == "__main__":
    main()
