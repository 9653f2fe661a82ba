"""Ranges from noised histograms."""

from typing import Any

import keras
import numpy as np
import pytest

from fedtrain.core import seeds
from fedtrain.data.examples import Examples
from fedtrain.data.sets import digits
from fedtrain.export.activation_ranges import (
    EDGES,
    _calibrated,
    furthest,
    paid_ranges,
    quantised,
    reach,
)
from fedtrain.export.source import ServedModel
from fedtrain.models.keras import keras_model
from fedtrain.privacy.account import noise_multiplier_for
from fedtrain.privacy.paid_counts import NoisedCounts

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("values", "sides"),
    [
        ([0.0], (0.0, 0.0)),
        ([[3.0, -0.5]], (3.0, 0.5)),
        ([np.nan, 1.0], (1.0, 0.0)),
        ([1e9, -1e9], (EDGES[-2], EDGES[-2])),
    ],
)
def test_a_row_names_the_bins_of_its_extremes(values, sides):
    for found, side in zip(reach(np.array(values)), sides, strict=True):
        below = EDGES[found - 1] if found else 0.0
        assert below <= side < EDGES[found]


def test_range_covers_what_many_rows_reach_within_half_an_octave():
    counts = np.zeros(len(EDGES))
    for value in np.random.default_rng(0).lognormal(sigma=0.3, size=4000):
        counts[reach(np.array([value]))[0]] += 1
    noised = counts + np.random.default_rng(1).normal(scale=8.0, size=len(counts))
    # Seeded; unseeded, noise alone would raise the range once in a thousand times.
    assert 1.9 < furthest(noised, 8.0) < 3.9


def test_noise_alone_is_no_range():
    noise = np.random.default_rng(2).normal(scale=50.0, size=len(EDGES))
    assert furthest(noise, 50.0) == 0.0


class Noised:
    """Sums over all rows with the noise that epsilon 1 for a row needs; no ledger."""

    def check(self, dataset: Any) -> None:
        """Nothing is charged."""

    def rows(self, dataset: Any) -> Any:
        return self

    def with_vectors(self, vectors: Any) -> Any:
        return sum(vector[0].astype(np.int64) for vector in vectors)

    def ask(self, name: str, rows: Any, *, squared_norm: int) -> NoisedCounts:
        one = noise_multiplier_for(
            1.0, delta=1e-5, neighboring_relation="add_or_remove_one"
        )
        stddev = one * float(np.sqrt(squared_norm))
        sums = rows()
        noise = np.random.default_rng(3).normal(scale=stddev, size=sums.shape)
        return NoisedCounts(sums + noise, stddev)


@pytest.mark.slow
def test_noised_ranges_of_a_thousand_rows_cost_less_than_a_point(
    source_with: Any,
) -> None:
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    split = digits.load(seed=seeds.root(1))
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10)]
    network = keras.Sequential([keras.layers.Input([64]), *layers])
    network.compile(keras.optimizers.Adam(0.01), LOSS)
    rows, test = split.train.examples, split.test
    network.fit(rows.features, rows.labels, epochs=20, verbose=0)
    drawn = np.random.default_rng(0).random((50, 64), np.float32)
    made = source_with(
        keras_model(network, loss=LOSS),
        Examples(features=drawn, labels=np.zeros(50, np.int32)),
    )
    served, paying = ServedModel(made), Noised()
    ranges = paid_ranges(served, drawn, split.train, paying)  # type: ignore[arg-type] # as much of a payment as it uses
    content = quantised(_calibrated(served, drawn), ranges, bits=8)
    runner = runtime.Interpreter(model_content=content).get_signature_runner()
    own = network.predict(test.features, verbose=0)
    found = runner(features=test.features)["outputs"]
    exact, noised = (np.mean(o.argmax(-1) == test.labels) for o in (own, found))
    assert exact > 0.9
    assert noised > exact - 0.01
