import json

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.core.errors import FedtrainError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.distributed import DistributedRuntime, shares
from fedtrain.runtimes.replicas import Replicas

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)
ROUND = fed_avg(local_sgd(MODEL, sgd(0.1), Epochs(batch_size=4)))


def cohort(sizes):
    random = seeds.generator(seeds.root(2))
    return [
        CohortClient(
            f"client-{i}",
            Examples(
                features=random.normal(size=[size, 4]).astype(np.float32),
                labels=random.integers(0, 3, size),
            ),
            ((), ()),
        )
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("num_shares", [1, 2, 3, 8])
def test_shares_are_a_partition_with_as_many_clients_and_about_as_many_rows(num_shares):
    clients = cohort([50, 1, 7, 30, 30, 2, 9])
    dealt = shares(clients, num_shares)
    ids = [client.client_id for share in dealt for client in share]
    assert sorted(ids) == sorted(client.client_id for client in clients)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    rows = [sum(c.examples.num_examples for c in share) for share in dealt]
    assert max(rows) - min(rows) <= 50


def test_a_share_keeps_the_order_of_the_cohort():
    dealt = shares(cohort([1, 9, 5, 7]), 2)
    assert [[c.client_id for c in share] for share in dealt] == [
        ["client-0", "client-1"],
        ["client-2", "client-3"],
    ]


def one_replica():
    return DistributedRuntime(Replicas(tf.distribute.MirroredStrategy(["CPU:0"])))


@pytest.mark.parametrize("sizes", [[3, 17, 0, 8], []])
def test_one_replica_gives_the_bits_of_the_compiled_runtime(sizes):
    state = ROUND.init(MODEL.init(SEED))
    apart = one_replica().run_round(ROUND, state, cohort(sizes), SEED)
    alone = CompiledRuntime().run_round(ROUND, state, cohort(sizes), SEED)
    for a, b in zip(
        tf.nest.flatten(apart.state), tf.nest.flatten(alone.state), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert apart.metrics == alone.metrics


def test_a_round_that_the_workers_started_differently_is_not_used(monkeypatch):
    runtime = one_replica()
    summed = runtime.replicas.sum

    def with_another_worker(nests):
        total = summed(nests)
        return total._replace(fingerprint=total.fingerprint + 1.0)

    monkeypatch.setattr(runtime.replicas, "sum", with_another_worker)
    state = ROUND.init(MODEL.init(SEED))
    with pytest.raises(FedtrainError, match="same weights"):
        runtime.run_round(ROUND, state, cohort([5]), SEED)


def test_the_choice_is_told_once_also_of_an_equal_round_and_not_before_a_client(
    monkeypatch,
):
    runtime = one_replica()
    told = []
    broadcast = runtime.replicas.broadcast

    def heard(content):
        told.append(json.loads(content))
        return broadcast(content)

    monkeypatch.setattr(runtime.replicas, "broadcast", heard)
    state = ROUND.init(MODEL.init(SEED))
    runtime.begin(ROUND, num_rounds=3)
    for sizes in ([], [3], [4]):
        runtime.run_round(ROUND._replace(), state, cohort(sizes), SEED)
    assert [bool(choice) for choice in told] == [False, True]
