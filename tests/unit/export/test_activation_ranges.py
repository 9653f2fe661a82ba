"""Ranges from noised histograms."""

import numpy as np
import pytest

from fedtrain.export.activation_ranges import EDGES, furthest, reach


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
