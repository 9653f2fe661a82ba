"""What an aggregator sees with its colluders says no more than the honest sum.

Exhaustively, in a world small enough to write down: every key stream is a truly random
pad (that AES in counter mode looks like one is the assumption), every commitment and
every sealed box says nothing (SHA-256 with a random nonce, an authenticated cipher).
Then each possible view must come up equally often for all inputs with one honest sum:
whoever knows that sum can make the view up without having seen a single input.
"""

import itertools

import numpy as np
import pytest

from fedtrain.secagg import masks, shamir

NAMES = ("ada", "bob", "cyd", "dan")
PAIRS = tuple(itertools.combinations(NAMES, 2))
FIELD = 5
TINY = 3


def distribution(columns):
    """Each distinct view, and how often it comes up."""
    views, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    return views.tolist(), counts.tolist()


def all_of(num, base):
    """Every choice of ``num`` digits, an array each."""
    grid = np.indices((base,) * num).reshape(num, -1)
    return list(grid)


@pytest.mark.parametrize("points", [*itertools.combinations((1, 2, 3, 4), 2)])
def test_threshold_minus_one_shares_are_uniform_whatever_the_secret(points):
    for secret in range(FIELD):
        coefficients = [secret, *all_of(2, FIELD)]
        shares = [shamir.value_at(point, coefficients, FIELD) for point in points]
        views, counts = distribution(shares)
        assert len(views) == FIELD**2
        assert set(counts) == {1}


def test_threshold_shares_are_not():
    coefficients = [3, *all_of(2, FIELD)]
    shares = [shamir.value_at(point, coefficients, FIELD) for point in (1, 2, 4)]
    found = {
        shamir.value_at_zero(dict(zip((1, 2, 4), each, strict=True)), FIELD)
        for each in np.stack(shares, axis=1).tolist()
    }
    assert found == {3}


class Pads:
    """A key stream whose words are all choices of a pad, one choice a word."""

    def __init__(self, words):
        self._words = words.astype(np.uint32)

    def words(self, num):
        return np.resize(self._words, 2 * num).view(np.uint64)


def masked_inputs(inputs, self_pads, pair_pads):
    """Every client's masked input under all choices of pads, modulo 2."""
    sent = {}
    for name in NAMES:
        added, removed = [Pads(self_pads[name])], []
        for pair, pad in pair_pads.items():
            if name in pair:
                peer = next(each for each in pair if each != name)
                side = added if masks.is_added(name, peer) else removed
                side.append(Pads(pad))
        vector = np.full(self_pads[name].size, inputs[name], np.uint32)
        masks.apply(vector, added=added, removed=removed)
        # Modulo 2^32 and then modulo 2: all pads can be listed there.
        sent[name] = vector & 1
    return sent


def aggregators_view(inputs, *, lost):
    """What the aggregator and dan see: traffic, opened masks, all of dan's secrets."""
    pads = all_of(len(NAMES) + len(PAIRS), 2)
    self_pads = dict(zip(NAMES, pads, strict=False))
    pair_pads = dict(zip(PAIRS, pads[len(NAMES) :], strict=True))
    sent = masked_inputs(inputs, self_pads, pair_pads)
    opened = [self_pads[name] for name in NAMES if name != lost]
    known = [pair_pads[pair] for pair in PAIRS if "dan" in pair or lost in pair]
    return distribution([*sent.values(), *opened, *known])


@pytest.mark.parametrize("lost", [None, "cyd"])
def test_with_one_colluder_only_the_honest_survivors_sum_is_seen(lost):
    # The lost client's input arrives too, but late: it must stay hidden altogether.
    views = {}
    for bits in itertools.product((0, 1), repeat=3):
        inputs = dict(zip(NAMES, (*bits, 1), strict=True))
        honest = [name for name in NAMES if name not in ("dan", lost)]
        honest_sum = sum(inputs[name] for name in honest) % 2
        views.setdefault(honest_sum, []).append(aggregators_view(inputs, lost=lost))
    for alike in views.values():
        assert len(alike) == 4
        assert all(view == alike[0] for view in alike)
    assert views[0][0] != views[1][0]


def test_a_client_opened_both_ways_is_bare():
    def view(cyd):
        inputs = {"ada": 0, "bob": cyd, "cyd": cyd, "dan": 0}
        pads = all_of(len(NAMES) + len(PAIRS), 2)
        self_pads = dict(zip(NAMES, pads, strict=False))
        pair_pads = dict(zip(PAIRS, pads[len(NAMES) :], strict=True))
        sent = masked_inputs(inputs, self_pads, pair_pads)
        of_cyd = [pad for pair, pad in pair_pads.items() if "cyd" in pair]
        return distribution([*sent.values(), self_pads["cyd"], *of_cyd])

    assert view(0) != view(1)


def traffic(first, second, *, are_opened):
    """Two honest clients, a colluder with one share of each secret; threshold 2.

    Rows are all choices of two self masks, one pair mask, and the four polynomials that
    share these; columns are what aggregator and colluder see, in the field itself.
    """
    digits = all_of(7, TINY)
    seeds, pair, slopes = digits[:2], digits[2], digits[3:]
    sign = 1 if masks.is_added("ada", "bob") else -1
    sent = [
        (first + seeds[0] + sign * pair) % TINY,
        (second + seeds[1] - sign * pair) % TINY,
    ]
    secrets = [*seeds, pair, pair]
    shares = [
        shamir.value_at(2, [secret, slope], TINY)
        for secret, slope in zip(secrets, slopes, strict=True)
    ]
    return distribution([*sent, *shares, *(seeds if are_opened else [])])


def test_threshold_minus_one_shares_and_all_traffic_say_nothing():
    nothing = traffic(0, 0, are_opened=False)
    for first, second in ((0, 1), (2, 1), (2, 2)):
        assert traffic(first, second, are_opened=False) == nothing


def test_after_the_sum_is_opened_shares_and_traffic_say_the_sum():
    views = [traffic(*pair, are_opened=True) for pair in ((0, 2), (1, 1), (2, 0))]
    assert views[0] == views[1] == views[2]
    assert traffic(0, 1, are_opened=True) != views[0]
