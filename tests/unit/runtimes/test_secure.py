"""Masked sums equal those without masks, to the bit, whatever the runtime."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.fixed_point import FixedPoint
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError, PrivacyError, TooFewClientsError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.rounds.dp_fed_sgd import dp_fed_sgd, integer_fed_sgd
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime
from fedtrain.runtimes.secure import SecureRuntime
from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.regions import regions_for
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_regions import RegionsOnlyError

SEED = seeds.root(4)
MODEL = dense_classifier(3, 2)
WEIGHTS = nests.to_tensors(MODEL.init(SEED))
CLIENTS = ("ada", "bob", "cid", "dan", "eve")
SESSION = parameters_for(5)
MECHANISM = IntegerGaussian(
    unit="example",
    trust="distributed",
    clipping_norm=0.5,
    noise_multiplier=1.0,
    grid=FixedPoint(num_weights=8, bounded="unit", largest=2**30 // 5),
    num_rounds=10,
    num_clients=5,
    num_honest=SESSION.num_honest_survivors,
    sampling_rate=0.5,
)
ROUND = integer_fed_sgd(MODEL, sgd(1.0), MECHANISM, expected_count=10.0)
# A norm that cuts nothing, and shares for regions.
REGIONAL = replace(
    MECHANISM, clipping_norm=8.0, num_clients=9, num_honest=2, num_regions=3
)
WIDE = integer_fed_sgd(MODEL, sgd(1.0), REGIONAL, expected_count=8.0)


def cohort(names=CLIENTS):
    random = seeds.generator(SEED)
    return [
        CohortClient(
            name,
            Examples(
                features=random.normal(size=[4, 3]).astype(np.float32),
                labels=np.zeros(4, np.int32),
            ),
            ROUND.client_work.init_state(WEIGHTS),
        )
        for name in names
    ]


def after(runtime, clients, round_=ROUND):
    result = runtime.run_round(round_, round_.init(WEIGHTS), clients, SEED)
    leaves = tf.nest.flatten(result.state.weights)
    return np.concatenate([np.ravel(leaf) for leaf in leaves]), result


def test_masks_leave_the_sum_as_it_is_to_the_bit():
    masked, result = after(SecureRuntime(SESSION), cohort())
    np.testing.assert_array_equal(masked, after(EagerRuntime(), cohort())[0])
    assert result.lost_clients == ()
    # Gradients differ between compiled and eager in the last bits, so by grid units.
    compiled, _ = after(CompiledRuntime(strategy="graph"), cohort())
    np.testing.assert_allclose(masked, compiled, atol=10 * 0.5 / 2**16 / 10.0)


def test_a_lost_client_is_missing_from_the_sum_and_nothing_else():
    runtime = SecureRuntime(SESSION, lost={"dan": Step.INPUTS})
    masked, result = after(runtime, cohort())
    assert result.lost_clients == ("dan",)
    others = [client for client in cohort() if client.client_id != "dan"]
    np.testing.assert_array_equal(masked, after(EagerRuntime(), others)[0])


def test_regions_give_the_sum_without_them_to_the_bit_in_every_runtime():
    # Gradients of zero weights on these rows are sums of halves: exact everywhere.
    exact = nests.scale(WEIGHTS, 0.0)
    rows = Examples(
        features=np.array([[1, 0, 2], [0, 3, 1]], np.float32),
        labels=np.array([0, 1], np.int32),
    )
    clients = [
        CohortClient(f"client-{number}", rows, ROUND.client_work.init_state(exact))
        for number in range(9)
    ]
    runtimes = (
        SecureRuntime(regions_for(9, 3)),
        SecureRuntime(parameters_for(9)),
        EagerRuntime(),
        CompiledRuntime(strategy="graph"),
    )
    masked, *others = (
        tf.nest.flatten(
            runtime.run_round(WIDE, WIDE.init(exact), clients, SEED).state.weights
        )
        for runtime in runtimes
    )
    for found in others:
        for one, other in zip(masked, found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_region_that_lost_too_many_is_missing_from_the_sum():
    names = [f"client-{number:02}" for number in range(12)]
    runtime = SecureRuntime(regions_for(12, 4), lost={"client-05": Step.INPUTS})
    grid = replace(MECHANISM.grid, largest=2**30 // 12)
    of_regions = replace(REGIONAL, grid=grid, num_clients=12, num_regions=4)
    round_ = integer_fed_sgd(MODEL, sgd(1.0), of_regions, expected_count=10.0)
    masked, result = after(runtime, cohort(names), round_)
    assert set(result.lost_clients) == {"client-03", "client-04", "client-05"}
    others = [c for c in cohort(names) if c.client_id not in result.lost_clients]
    np.testing.assert_array_equal(masked, after(EagerRuntime(), others, round_)[0])


def test_a_round_whose_regions_have_shown_sums_is_not_tried_again():
    names = [f"client-{number}" for number in range(9)]
    runtime = SecureRuntime(regions_for(9, 3), lost={"client-0": Step.INPUTS})
    with pytest.raises(RegionsOnlyError, match="2 of 3 regions have shown"):
        after(runtime, cohort(names), WIDE)
    with pytest.raises(PrivacyError, match="Round 0 has no total"):
        after(runtime, cohort(names), WIDE)
    # Nothing is known of a round in which no region had a sum.
    silent = dict.fromkeys(("client-0", "client-3", "client-6"), Step.INPUTS)
    runtime = SecureRuntime(regions_for(9, 3), lost=silent)
    for _ in range(2):
        with pytest.raises(TooFewClientsError, match="0 of 3"):
            after(runtime, cohort(names), WIDE)


@pytest.mark.parametrize(
    "change", [{"num_honest": 3}, {"num_regions": 1}, {"num_clients": 8}], ids=str
)
def test_noise_for_another_session_is_refused(change):
    # Counting on one honest client more than the regions have would be a third less.
    other = replace(REGIONAL, **({"num_honest": 2} | change))
    round_ = integer_fed_sgd(MODEL, sgd(1.0), other, expected_count=8.0)
    runtime = SecureRuntime(regions_for(9, 3))
    with pytest.raises(PrivacyError, match="the session has"):
        after(runtime, cohort(()), round_)


def test_rounds_that_are_not_in_whole_numbers_are_refused():
    plain = dp_fed_sgd(
        MODEL,
        sgd(1.0),
        clipping_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        expected_count=10.0,
    )
    with pytest.raises(ConfigError, match="masks would not cancel"):
        SecureRuntime(SESSION).run_round(plain, plain.init(WEIGHTS), cohort(), SEED)
