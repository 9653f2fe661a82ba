"""The fast way against exact arithmetic, and the branches that draw more bits."""

import ast
import inspect
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from fedtrain.core.keystream import KeyStream
from fedtrain.privacy import discrete_gaussian, exponential, rounded_gaussian, staircase
from fedtrain.privacy.staircase import draws

KEY = bytes(range(32))
CONTINUOUS = staircase.staircase(Fraction(1, 2**16), 19, is_continuous=True)
SHAPES = {
    "half": discrete_gaussian._staircase(Fraction(1, 4)),
    "four": discrete_gaussian._staircase(Fraction(16)),
    "two thousand": discrete_gaussian._staircase(Fraction(4321, 2) ** 2),
    "2^16": discrete_gaussian._staircase(Fraction(2**32)),
    "continuous": CONTINUOUS,
}


class Given:
    """A source of words that a test has chosen."""

    def __init__(self, *words):
        self.left = list(words)

    def words(self, num):
        taken, self.left = self.left[:num], self.left[num:]
        assert len(taken) == num
        return np.array(taken, np.uint64)


def by_hand(stairs, first, second):
    """One proposal in decimal numbers of 60 digits: the value kept, or None."""
    with localcontext() as context:
        context.prec = 60
        ratio = Decimal(stairs.ratio.numerator) / Decimal(stairs.ratio.denominator)
        uniform = (Decimal(first) + Decimal("0.5")) / 2**64 * _total(stairs.ratio)
        step = 0
        while uniform > (weight := (-ratio * step * step / 2).exp()):
            uniform -= weight
            step += 1
        bits = f"{second:064b}"
        place = int(bits[1 : 1 + stairs.bits] or "0", 2)
        at = Decimal(place) / 2**stairs.bits
        chance = (-ratio * (2 * step * at + at * at) / 2).exp()
        rest = bits[1 + stairs.bits :]
        kept = (Decimal(int(rest, 2)) + Decimal("0.5")) / 2 ** len(rest) < chance
        value = (step << stairs.bits) + place
        if stairs.is_continuous:
            value = -value - 1 if bits[0] == "1" else value
        elif bits[0] == "1":
            kept, value = kept and value != 0, -value
        return value if kept else None


_TOTALS = {}


def _total(ratio):
    if ratio not in _TOTALS:
        scale = Decimal(ratio.numerator) / Decimal(ratio.denominator)
        total, step, weight = Decimal(0), 0, Decimal(1)
        while weight > Decimal("1e-45"):
            weight = (-scale * step * step / 2).exp()
            total, step = total + weight, step + 1
        _TOTALS[ratio] = total
    return _TOTALS[ratio]


@pytest.mark.parametrize("name", ["half", "four"])
def test_the_fast_way_equals_decimal_arithmetic_on_the_same_words(name):
    stairs = SHAPES[name]
    words = KeyStream(KEY, "words").words(600)
    fast = staircase._accepted(stairs, words, Given())
    pairs = zip(words[:300].tolist(), words[300:].tolist(), strict=True)
    expected = [by_hand(stairs, *pair) for pair in pairs]
    np.testing.assert_array_equal(fast, [x for x in expected if x is not None])


@pytest.mark.parametrize("name", ["two thousand", "2^16", "continuous"])
def test_wide_shapes_equal_decimal_arithmetic_where_it_is_close(name):
    """Bits that nearly all accept are rare: here the last bits are made all ones."""
    stairs = SHAPES[name]
    rest = np.uint64((1 << (63 - stairs.bits)) - 1)
    words = KeyStream(KEY, "words").words(60).copy()
    words[:30] //= np.uint64(64)  # near steps, for the sake of the test's time
    words[30:] |= rest - (rest >> np.uint64(9)) - np.uint64(1)
    fast = staircase._accepted(stairs, words, Given())
    pairs = zip(words[:30].tolist(), words[30:].tolist(), strict=True)
    expected = [by_hand(stairs, *pair) for pair in pairs]
    assert None in expected
    np.testing.assert_array_equal(fast, [x for x in expected if x is not None])


@pytest.mark.parametrize("step", [0, 7])
def test_a_word_on_an_edge_is_decided_by_the_next_word(step):
    ratio = SHAPES["2^16"].ratio
    edge = staircase._edges(ratio, 192)[step]
    first, second, third = edge >> 128, (edge >> 64) % 2**64, edge % 2**64
    assert int(SHAPES["2^16"].edges[step]) == first
    exact_step = staircase._exact_step
    stairs = SHAPES["2^16"]
    assert exact_step(stairs, first, Given(second - 1)) == step
    assert exact_step(stairs, first, Given(second + 1)) == step + 1
    assert exact_step(stairs, first, Given(second, third - 1)) == step
    assert exact_step(stairs, first, Given(second, third + 1)) == step + 1


def test_the_tail_goes_beyond_the_table():
    stairs = SHAPES["four"]
    last = 2**64 - 1
    step = staircase._exact_step(stairs, last, Given(last, last - 1))
    assert step > len(stairs.edges)
    words = np.array([last, 5], np.uint64)
    value = staircase._accepted(stairs, words, Given(last - 1))
    assert value.tolist() == [
        step := staircase._exact_step(stairs, last, Given(last - 1))
    ]
    assert step >= len(stairs.edges)


@pytest.mark.parametrize("name", ["2^16", "continuous"])
def test_a_place_on_the_edge_of_its_chance_is_decided_by_further_bits(name):
    stairs = SHAPES[name]
    step, place, bits = 200, 1 << (stairs.bits - 1), 63 - stairs.bits
    exponent = staircase._exponent(stairs.ratio, step, place, stairs.bits)
    edge = exponential.exp_bounds(*exponent, bits + 64)[0]
    rest, further = edge >> 64, edge % 2**64
    place_words = [0] if stairs.is_continuous else []
    less = Given(further - 2**44, *place_words)
    more = Given(further + 2**44, *place_words)
    assert staircase._is_kept(stairs, step, place, rest, less)
    assert not staircase._is_kept(stairs, step, place, rest, more)
    assert less.left == more.left == []


def test_edges_do_not_depend_on_the_precision_they_were_found_with():
    coarse = staircase._edges(Fraction(1, 9), 64)
    fine = staircase._edges(Fraction(1, 9), 128)
    assert coarse == [edge >> 64 for edge in fine[: len(coarse)]]


def test_draws_follow_the_words_alone():
    stairs = SHAPES["2^16"]
    one, same, other = (
        draws(stairs, 40_000, KeyStream(KEY, label)) for label in ("a", "a", "b")
    )
    assert one.dtype == np.int64
    assert len(one) == 40_000
    np.testing.assert_array_equal(one, same)
    assert np.mean(one == other) < 1e-3
    assert len(draws(stairs, 0, KeyStream(KEY))) == 0


@pytest.mark.parametrize(
    "module", [staircase, exponential, discrete_gaussian, rounded_gaussian]
)
def test_no_floating_point_is_written_on_the_path(module):
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        name = getattr(node, "id", getattr(node, "attr", ""))
        assert name not in {"float", "float32", "float64", "math", "exp", "sqrt", "log"}
