import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.mean import mean_over_expected_cohort
from fedtrain.client_work.batching import Epochs, Poisson
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.privacy.dp_sgd import dp_sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime
from fedtrain.runtimes.engine import padding_share
from fedtrain.runtimes.packing import packed_cohort

MODEL = dense_classifier(4, 3)
SEED = seeds.root(5)


def round_with(batching):
    return fed_avg(local_sgd(MODEL, sgd(0.1), batching))


ROUND = round_with(Epochs(batch_size=4, local_epochs=2))


def cohort(sizes, round_=ROUND):
    random = seeds.generator(seeds.root(2))
    state = round_.client_work.init_state(MODEL.init(SEED))
    return [
        CohortClient(
            f"client-{i}",
            Examples(
                features=random.normal(size=[size, 4]).astype(np.float32),
                labels=random.integers(0, 3, size),
            ),
            state,
        )
        for i, size in enumerate(sizes)
    ]


def bits(result):
    return [leaf.numpy().tobytes() for leaf in tf.nest.flatten(result.state)]


def test_the_number_of_workers_does_not_change_a_bit():
    clients = cohort([3, 17, 0, 8, 40, 1, 9] * 5)
    state = ROUND.init(MODEL.init(SEED))
    results = [
        CompiledRuntime(num_workers=workers).run_round(ROUND, state, clients, SEED)
        for workers in (1, 2, 5)
    ]
    assert bits(results[0]) == bits(results[1]) == bits(results[2])


def test_a_cohort_without_clients_leaves_the_weights():
    state = ROUND.init(MODEL.init(SEED))
    result = CompiledRuntime().run_round(ROUND, state, [], SEED)
    for old, new in zip(
        tf.nest.flatten(state.weights),
        tf.nest.flatten(result.state.weights),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
    assert int(result.state.round_number) == 1


def test_clients_without_rows_may_fill_a_chunk():
    round_ = round_with(Poisson(sampling_rate=0.5, local_steps=2))
    state = round_.init(MODEL.init(SEED))
    result = CompiledRuntime(chunk_size=1).run_round(
        round_, state, cohort([0, 5, 0], round_), SEED
    )
    assert np.isfinite(result.state.weights.trainable[0]["kernel"]).all()


def test_other_cohort_sizes_do_not_compile_again():
    runtime = CompiledRuntime(num_workers=1)
    state = ROUND.init(MODEL.init(SEED))
    for sizes in ([3, 4, 5], [7] * 9, [20, 1], [6] * 40):
        runtime.run_round(ROUND, state, cohort(sizes), SEED)
    assert runtime._engine(ROUND).program("graph").num_compiled() == 1


def test_other_numbers_of_chunks_do_not_compile_again_and_again():
    runtime = CompiledRuntime(num_workers=1, chunk_size=1)
    state = ROUND.init(MODEL.init(SEED))
    for num_clients in (2, 17, 32, 34, 49):
        clients = cohort([2] * num_clients)
        few = runtime.run_round(ROUND, state, clients, SEED)
    assert len(runtime._engine(ROUND).update._traced) == 2  # of two sums, and of four
    apart = EagerRuntime().run_round(ROUND, state, clients, SEED)
    for a, b in zip(
        tf.nest.flatten(few.state), tf.nest.flatten(apart.state), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_order_statistics_are_refused_with_the_way_out():
    median = ROUND._replace(needs="contributions", name="median")
    with pytest.raises(ConfigError, match=r"median needs each.*weighted_mean"):
        CompiledRuntime().run_round(median, None, [], SEED)


def centring_model():
    """A model whose output for a row depends on all rows of the batch, as BatchNorm."""

    def forward(weights, features, *, training, seed):
        centred = features - tf.reduce_mean(features, axis=0, keepdims=True)
        return MODEL.forward(weights, centred, training=training, seed=seed)

    return MODEL._replace(forward=forward, mixing_layers=("centring",))


def test_padding_is_no_row_to_a_layer_that_looks_at_the_whole_batch():
    batching = Epochs(batch_size=16, local_epochs=2)
    round_ = fed_avg(local_sgd(centring_model(), sgd(0.5), batching))
    state = round_.init(MODEL.init(SEED))
    clients = cohort([3, 40, 1, 17, 8], round_)
    together = CompiledRuntime(chunk_size=5).run_round(round_, state, clients, SEED)
    apart = EagerRuntime().run_round(round_, state, clients, SEED)
    for a, b in zip(
        tf.nest.flatten(together.state.weights),
        tf.nest.flatten(apart.state.weights),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("same_shapes", [False, True])
def test_the_places_of_a_client_point_at_its_own_rows_only(same_shapes):
    round_ = round_with(Poisson(sampling_rate=0.1, local_steps=6))
    packed = packed_cohort(
        round_.client_work,
        cohort([5, 6, 0, 3], round_),
        SEED,
        chunk_size=6,
        same_shapes=same_shapes,
    )
    (part,) = packed.chunks
    rows = part.chunk.rows.numpy()
    at = np.where(rows >= 0, rows, -1 - rows)
    sizes = part.chunk.num_examples.numpy()
    first_row = np.cumsum(sizes) - sizes
    for i, size in enumerate(sizes):
        if size:
            assert at[i].min() >= first_row[i]
            assert at[i].max() < first_row[i] + size
    assert (rows < 0).any()
    assert rows.shape[0] == (6 if same_shapes else 4)


def test_a_strategy_that_cannot_run_the_work_says_so():
    noisy = dp_sgd(
        MODEL,
        sgd(0.1),
        clipping_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        local_steps=2,
        expected_batch_size=4.0,
    )
    round_ = fed_avg(noisy, aggregator=mean_over_expected_cohort(2))
    runtime = CompiledRuntime(strategy="stacked", chunk_size=2)
    state = round_.init(MODEL.init(SEED))
    with pytest.raises(ConfigError, match=r"strategy is 'stacked'[\s\S]*\"graph\""):
        runtime.run_round(round_, state, cohort([4, 5], round_), SEED)


def test_a_sum_of_clipped_gradients_is_not_computed_in_lower_precision():
    noisy = dp_sgd(
        MODEL,
        sgd(0.1),
        clipping_norm=1.0,
        noise_multiplier=1.0,
        sampling_rate=0.5,
        local_steps=2,
        expected_batch_size=4.0,
    )
    round_ = fed_avg(noisy, aggregator=mean_over_expected_cohort(2))
    runtime = CompiledRuntime(strategy="graph", precision="bfloat16")
    state = round_.init(MODEL.init(SEED))
    with pytest.raises(PrivacyError, match="bfloat16"):
        runtime.run_round(round_, state, cohort([4, 5], round_), SEED)
    with pytest.raises(PrivacyError, match="bfloat16"):
        runtime.begin(round_, num_rounds=1)


def test_the_share_of_padding_is_what_each_strategy_computes_for_nothing():
    work = round_with(Epochs(batch_size=4)).client_work
    packed = packed_cohort(
        work, cohort([8, 6, 4, 1]), SEED, chunk_size=2, same_shapes=True
    )
    shares = {name: padding_share(packed, name) for name in ("graph", "xla", "stacked")}
    # 19 rows; 6 batches of 4; chunks (8, 6) and (4, 1) of 2 clients x 2 and 1 steps.
    assert shares == pytest.approx({"graph": 0, "xla": 5 / 24, "stacked": 5 / 24})
    packed = packed_cohort(
        work, cohort([8, 1, 1]), SEED, chunk_size=3, same_shapes=True
    )
    assert padding_share(packed, "stacked") == pytest.approx(1 - 10 / 24)
