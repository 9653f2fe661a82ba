import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import Aggregator, chain, nothing, unchanged
from fedtrain.aggregation.mean import (
    mean_over_expected_cohort,
    unweighted_mean,
    weighted_mean,
)
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.core.errors import PrivacyError
from fedtrain.core.mechanism import Mechanism

SEED = seeds.root(0)
CONTRIBUTIONS = [
    Contribution(update={"w": tf.constant([u])}, weight=tf.constant(w), metrics={})
    for u, w in [(1.0, 10.0), (4.0, 30.0)]
]


def aggregate(aggregator, contributions):
    state = aggregator.init({"w": tf.zeros([1])})
    shared = aggregator.share(state)
    client_state = aggregator.init_client({"w": tf.zeros([1])})
    encoded = [
        aggregator.encode(shared, c, client_state, SEED)[0] for c in contributions
    ]
    total = encoded[0]
    for contribution in encoded[1:]:
        total = nests.add(total, contribution)
    return float(aggregator.decode(state, total, SEED)[0].update["w"][0])


def test_weighted_mean():
    assert aggregate(weighted_mean(), CONTRIBUTIONS) == pytest.approx(3.25)


def test_unweighted_mean():
    assert aggregate(unweighted_mean(), CONTRIBUTIONS) == pytest.approx(2.5)


def test_a_mean_over_nobody_is_zero():
    nobody = [CONTRIBUTIONS[0]._replace(weight=tf.constant(0.0))]
    assert aggregate(weighted_mean(), nobody) == 0.0


def test_the_expected_cohort_is_the_denominator_whoever_answers():
    mean = mean_over_expected_cohort(5)
    assert aggregate(mean, CONTRIBUTIONS) == pytest.approx(1.0)
    assert aggregate(mean, CONTRIBUTIONS[:1]) == pytest.approx(0.2)


def test_a_weight_counts_up_to_its_public_maximum():
    mean = mean_over_expected_cohort(1, max_weight=20.0)
    assert aggregate(mean, CONTRIBUTIONS) == pytest.approx(1.0 * 0.5 + 4.0 * 1.0)


def stage(encode=unchanged, decode=None, **fields):
    return Aggregator(
        init=nothing,
        share=nothing,
        init_client=nothing,
        encode=encode,
        decode=decode or (lambda state, total, seed: (total, state)),
        **fields,
    )


def add_then_double(amount):
    def encode(shared, contribution, client_state, seed):
        update = {"w": contribution.update["w"] + amount}
        return contribution._replace(update=update), client_state

    def decode(state, total, seed):
        return total._replace(update={"w": total.update["w"] * 2 - amount}), state

    return stage(encode, decode)


def test_clients_encode_left_to_right_and_the_server_decodes_back():
    def triple(shared, contribution, client_state, seed):
        update = {"w": contribution.update["w"] * 3}
        return contribution._replace(update=update), client_state

    chained = chain(add_then_double(1.0), stage(triple))
    # (1 + 1) * 3 = 6 on the client; 6 * 2 - 1 = 11 on the server.
    assert aggregate(chained, CONTRIBUTIONS[:1]) == pytest.approx(11.0)


def test_stages_get_different_seeds():
    seen = []

    def record(state, total, seed):
        seen.append(tuple(np.asarray(seed)))
        return total, state

    aggregate(chain(stage(decode=record), stage(decode=record)), CONTRIBUTIONS)
    assert len(set(seen)) == 2


def test_an_exact_weight_beside_a_mechanism_is_refused():
    mechanism = Mechanism(
        name="gaussian",
        unit="client",
        trust="central",
        clipping_norm=1.0,
        noise_multiplier=1.0,
        noise_stddev_on_sum=1.0,
        dp_event=None,
    )
    with pytest.raises(PrivacyError, match=r"exact weight.*mean_over_expected_cohort"):
        chain(weighted_mean(), stage(mechanisms=(mechanism,)))
