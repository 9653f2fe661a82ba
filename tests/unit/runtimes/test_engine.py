"""The compiled parts of a round."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from fedtrain.aggregation.mean import weighted_mean
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import nests, seeds
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import empty_total
from fedtrain.runtimes.engine import Engine


def assert_sums_are_added_in_their_order():
    model = dense_classifier(2, 2)
    work = local_sgd(model, sgd(0.1), Epochs(batch_size=2))
    round_ = fed_avg(work, aggregator=weighted_mean())
    message = round_.broadcast(round_.init(model.init(seeds.root(3))))
    empty = empty_total(work, message)

    def part(value):
        return empty._replace(
            update=tf.nest.map_structure(
                lambda x: tf.fill(x.shape, value), empty.update
            )
        )

    # In float32, 1e8 + 1 is 1e8: another order gives 0 or 1.
    parts = [part(value) for value in (1e8, -1e8, 1.0, 1.0)]
    total = Engine(round_).total(message, parts)
    assert nests.num_weights(total.update) == 6
    for leaf in tf.nest.flatten(total.update):
        assert np.all(leaf.numpy() == 2.0)


def test_partial_sums_are_added_in_their_order():
    assert_sums_are_added_in_their_order()


def test_so_they_are_by_a_thread_that_ran_other_programs_before_any_round():
    """Threads keep a copy of TensorFlow's options from the first program they call."""

    def runs_something():
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
        tf.function(lambda: tf.constant(1) + 1)()

    with ThreadPoolExecutor(1) as early, ThreadPoolExecutor(1) as other:
        early.submit(runs_something).result()
        other.submit(assert_sums_are_added_in_their_order).result()
        early.submit(assert_sums_are_added_in_their_order).result()
