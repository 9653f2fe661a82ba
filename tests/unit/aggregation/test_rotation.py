import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.rotation import (
    random_rotation,
    rotated,
    unrotated,
    walsh_hadamard,
)
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError

SEED = seeds.root(3)
LENGTHS = [0, 1, 2, 3, 64, 100, 1000]


def vector_of(length):
    return seeds.generator(seeds.root(length)).normal(size=length)


def test_the_transform_is_the_matrix_of_sylvester():
    matrix = np.ones([1, 1])
    while len(matrix) < 16:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    vector = vector_of(16)
    np.testing.assert_allclose(walsh_hadamard(vector), matrix @ vector / 4, atol=1e-14)


def test_another_length_is_refused():
    with pytest.raises(ConfigError, match=r"power of two, got 12.*rotated"):
        walsh_hadamard(vector_of(12))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_rotation_keeps_length_and_norm_and_is_turned_back(length):
    vector = vector_of(length)
    turned = rotated(vector, SEED)
    assert turned.shape == vector.shape
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(vector), rel=1e-12)
    np.testing.assert_allclose(unrotated(turned, SEED), vector, atol=1e-12)


@pytest.mark.parametrize("place", [0, 700, 999])
def test_one_large_number_is_spread_over_all(place):
    vector = np.zeros(1000)
    vector[place] = 1.0
    # 512 numbers share it, of 1 / sqrt(512) = 0.044 each; up to 24 of them are spread
    # once more, to at most 24 / 512 = 0.047 each, whatever the signs.
    assert np.max(np.abs(rotated(vector, SEED))) < 0.05


def test_another_seed_is_another_rotation():
    vector = vector_of(1000)
    # The product's deviation is 0.03 of the squared norm: false for under 1e-20.
    one, other = rotated(vector, SEED), rotated(vector, seeds.root(4))
    assert abs(np.dot(one, other)) < 0.3 * np.dot(vector, vector)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_compiled_is_eager_to_the_bit(jit_compile):
    vector = tf.constant(vector_of(1000), tf.float32)
    compiled = tf.function(rotated, jit_compile=jit_compile, autograph=False)
    eager = rotated(vector, SEED).numpy()
    assert compiled(vector, tf.constant(SEED)).numpy().tobytes() == eager.tobytes()


def test_the_server_turns_the_sum_back():
    updates = [
        {
            "w": tf.constant(vector_of(15).reshape([5, 3])),
            "b": tf.constant(vector_of(n)),
        }
        for n in (3, 3)
    ]
    stage = random_rotation(SEED)
    state = stage.init(updates[0])
    sent = [
        stage.encode(stage.share(state), Contribution(update, 1.0, {}), (), SEED)[0]
        for update in updates
    ]
    total = tf.nest.map_structure(tf.add, sent[0].update, sent[1].update)
    found, _ = stage.decode(state, Contribution(total, 2.0, {}), SEED)
    for name in ("w", "b"):
        np.testing.assert_allclose(found.update[name], 2 * updates[0][name], atol=1e-12)
    assert np.max(np.abs(sent[0].update["w"] - updates[0]["w"])) > 0.1


def test_weights_of_several_types_are_refused():
    weights = {"w": tf.zeros([2]), "count": tf.zeros([], tf.int32)}
    with pytest.raises(ConfigError, match="float32, int32"):
        random_rotation(SEED).init(weights)
