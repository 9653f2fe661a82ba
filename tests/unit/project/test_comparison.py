import numpy as np
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.data.dataset import from_clients
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.project.comparison import trained_alone
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.eager import EagerRuntime

SEED = seeds.root(1)


def rows(seed: int, num_rows: int) -> Examples:
    random = np.random.Generator(np.random.Philox(seed))
    return Examples(
        features=random.normal(size=[num_rows, 3]).astype(np.float32),
        labels=random.integers(0, 2, num_rows).astype(np.int32),
    )


def test_a_client_alone_is_a_federation_of_one() -> None:
    dataset = from_clients({"a": rows(1, 8), "b": rows(2, 5), "empty": rows(3, 0)})
    model = dense_classifier(3, 2)
    work = local_sgd(model, sgd(0.5), Epochs(batch_size=4, shuffle=False))
    weights = model.init(SEED)
    alone = trained_alone(
        work, dataset, weights, runtime=EagerRuntime(), num_rounds=3, seed=SEED
    )
    assert set(alone) == {"a", "b"}
    for position, name in enumerate(["a", "b"]):
        round_ = fed_avg(work)
        state = round_.init(weights)
        for _ in range(3):
            kept = round_.client_work.init_state(state.weights)
            cohort = [CohortClient(name, dataset.client(position), kept)]
            state = EagerRuntime().run_round(round_, state, cohort, SEED).state
        pairs = zip(
            tf.nest.flatten(nests.to_numpy(alone[name])),
            tf.nest.flatten(nests.to_numpy(state.weights)),
            strict=True,
        )
        for ours, expected in pairs:
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
