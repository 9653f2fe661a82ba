import threading

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import ConfigError, FedtrainError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient, client_seed
from fedtrain.runtimes import cluster
from fedtrain.runtimes.asynchronous import QueueExecutor, thread_executor
from fedtrain.runtimes.cluster_worker import cluster_config
from fedtrain.runtimes.eager import contribute

MODEL = dense_classifier(4, 3)
SEED = seeds.root(1)
ROUND = fed_avg(local_sgd(MODEL, sgd(0.1), Epochs(batch_size=4)))
WORK = ROUND.client_work


def clients():
    random = seeds.generator(SEED)
    state = WORK.init_state(MODEL.init(SEED))
    for number, size in enumerate([6, 1, 0, 9]):
        features = random.normal(size=[size, 4]).astype(np.float32)
        rows = Examples(features=features, labels=random.integers(0, 3, size))
        yield CohortClient(f"client-{number}", rows, state)


def test_a_client_contributes_what_it_does_in_plain_python():
    message = ROUND.broadcast(ROUND.init(MODEL.init(SEED)))
    cohort = list(clients())
    with thread_executor(2) as executor:
        futures = [executor.submit(WORK, message, client, SEED) for client in cohort]
        results = [future.result(timeout=120) for future in futures]
    for client, result in zip(cohort, results, strict=True):
        seed = client_seed(SEED, client.client_id)
        expected, _ = contribute(WORK, message, client, seed)
        tf.nest.map_structure(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5),
            result.contribution,
            expected,
        )


def test_a_cancelled_client_is_never_computed():
    entered, leave = threading.Event(), threading.Event()
    calls = []

    def call(function, arguments):
        calls.append(1)
        entered.set()
        leave.wait(60)
        return function(*arguments)

    message = ROUND.broadcast(ROUND.init(MODEL.init(SEED)))
    first, second, *_ = clients()
    with QueueExecutor(call, 1) as executor:
        running = executor.submit(WORK, message, first, SEED)
        waiting = executor.submit(WORK, message, second, SEED)
        assert entered.wait(60)
        assert waiting.cancel()
        leave.set()
        running.result(timeout=60)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "text", ["", "{}", '{"cluster": {"worker": []}, "task": {"type": "chief"}}', "[1]"]
)
def test_a_cluster_that_is_not_described_is_named(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG"):
        cluster_config()


def test_only_the_chief_connects():
    given = {
        "cluster": {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]},
        "task": {"type": "worker", "index": 0},
    }
    with pytest.raises(ConfigError, match="chief"):
        cluster.cluster_executor(given)


def test_a_worker_that_never_answers_is_named():
    (address,) = free_addresses(1)
    given = {
        "cluster": {"chief": ["127.0.0.1:1"], "worker": [address]},
        "task": {"type": "chief", "index": 0},
    }
    with pytest.raises(FedtrainError, match=address):
        cluster.cluster_executor(given, timeout_s=0.1)


class Coordinator:
    """Loses the first result with its worker, then gives the next."""

    def __init__(self, error):
        self.errors = [error]

    def schedule(self, function, args):
        self.value = function(*args)
        return self

    def get(self):
        if self.errors:
            raise self.errors.pop()
        return self.value


def test_a_result_that_is_lost_with_its_worker_is_computed_again():
    lost = Coordinator(tf.errors.UnavailableError(None, None, "gone"))
    assert cluster._computed(lost, lambda x: 2 * x, (3,)) == 6


def test_a_client_that_fails_is_not_tried_again():
    broken = Coordinator(tf.errors.InvalidArgumentError(None, None, "bad rows"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad rows"):
        cluster._computed(broken, lambda x: 2 * x, (3,))
