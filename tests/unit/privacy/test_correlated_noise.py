import itertools

import numpy as np
import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.privacy.correlated_noise import (
    LONGEST_TREE,
    banded_mechanism,
    square_root_coefficients,
    tree_gram,
    tree_mechanism,
)
from fedtrain.privacy.participation import Participation, squared_sensitivity_of_one


def triangle(coefficients, size):
    return sum(c * np.eye(size, k=-i) for i, c in enumerate(coefficients))


def patterns(num_rounds, min_separation, most):
    for count in range(1, most + 1):
        for rounds in itertools.combinations(range(num_rounds), count):
            if count == 1 or min(np.diff(rounds)) >= min_separation:
                yield list(rounds)


@pytest.mark.parametrize("separation", [1, 2, 3, 5])
@pytest.mark.parametrize("encoder", ["tree", "square_root"])
def test_bound_covers_every_pattern(separation, encoder):
    num_rounds = 9
    gram = tree_gram(num_rounds)
    if encoder == "square_root":
        matrix = triangle(square_root_coefficients(4), num_rounds)
        gram = matrix.T @ matrix
    pattern = Participation(num_rounds=num_rounds, min_separation=separation)
    of_one = squared_sensitivity_of_one(gram, pattern)
    for rounds in patterns(num_rounds, separation, pattern.most):
        squared = gram[np.ix_(rounds, rounds)].sum()
        assert squared <= len(rounds) * of_one + 1e-9


def test_bound_is_reached_by_one_participation():
    gram = tree_gram(8)
    pattern = Participation(num_rounds=8, max_participations=1)
    assert squared_sensitivity_of_one(gram, pattern) == np.max(np.diag(gram)) == 4


@pytest.mark.parametrize("num_rounds", [1, 7, 8, 21])
def test_tree_gram_counts_the_nodes_of_prefixes(num_rounds):
    nodes = set()
    for done in range(1, num_rounds + 1):
        start = 0
        for level in reversed(range(done.bit_length())):
            if done >> level & 1:
                nodes.add((start, start + (1 << level)))
                start += 1 << level
    held = np.array([[a <= i < b for i in range(num_rounds)] for a, b in sorted(nodes)])
    held = held.astype(float)
    np.testing.assert_array_equal(tree_gram(num_rounds), held.T @ held)


def test_square_root_squares_to_the_sum_of_rounds():
    root = triangle(square_root_coefficients(12), 12)
    np.testing.assert_allclose(root @ root, np.tril(np.ones([12, 12])), atol=1e-12)


@pytest.mark.parametrize("num_rounds", [16, 256, 2048])
def test_square_root_has_landaus_constants_as_its_sensitivity(num_rounds):
    squared = np.sum(np.square(square_root_coefficients(num_rounds)))
    # Watson (1930), The constants of Landau and Lebesgue: the limit for many rounds.
    limit = (np.log(16.0 * num_rounds) + np.euler_gamma) / np.pi
    assert squared == pytest.approx(limit, abs=0.1 / num_rounds)


def prefix_error(coefficients, num_rounds, most):
    """Root mean square error of all prefix sums, at sensitivity one."""
    encoder = triangle(coefficients, num_rounds)
    decoder = np.tril(np.ones_like(encoder)) @ np.linalg.inv(encoder)
    squared_sensitivity = most * np.sum(np.square(coefficients))
    return np.sqrt(squared_sensitivity * np.sum(np.square(decoder)) / num_rounds)


def test_bands_gain_when_participation_is_rare_and_nothing_when_it_is_not():
    num_rounds = 512
    independent = prefix_error([1.0], num_rounds, most=4)
    rare = prefix_error(square_root_coefficients(128), num_rounds, most=4)
    assert independent / rare > 2.0
    every_round = Participation(num_rounds=num_rounds)
    with pytest.raises(ConfigError, match="num_bands is 2"):
        banded_mechanism(
            clipping_norm=1.0,
            noise_multiplier=1.0,
            participation=every_round,
            num_bands=2,
        )


def test_participations_together_cost_the_declared_multiplier():
    pattern = Participation(num_rounds=100, min_separation=10)
    for build in (banded_mechanism, tree_mechanism):
        stage = build(clipping_norm=1.0, noise_multiplier=3.0, participation=pattern)
        (mechanism,) = stage.mechanisms
        assert mechanism.min_separation == 10
        assert dict(mechanism.details)["max_participations"] == 10
        assert mechanism.dp_event.noise_multiplier == pytest.approx(3.0 * 10**0.5)


def test_clients_see_no_past_noise():
    pattern = Participation(num_rounds=4, min_separation=4)
    stage = banded_mechanism(
        clipping_norm=1.0, noise_multiplier=1.0, participation=pattern
    )
    assert stage.share(stage.init({"w": np.zeros(3, np.float32)})) == ()


def test_too_long_a_tree_is_refused():
    pattern = Participation(num_rounds=LONGEST_TREE + 1)
    with pytest.raises(ConfigError, match="use banded_mechanism"):
        tree_mechanism(clipping_norm=1.0, noise_multiplier=1.0, participation=pattern)
