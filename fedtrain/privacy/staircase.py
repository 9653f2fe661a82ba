"""Exact draws from Gaussian shapes: a staircase is proposed, whole numbers accept.

The half line is cut into steps of equal width. A step ``j`` is drawn with chance
proportional to exp(-c j²/2), ``c`` the squared width over the variance; a place ``U``
within it uniformly; and the place is kept with chance exp(-c (2 j U + U²)/2), so what
is kept has density proportional to exp(-c (j + U)²/2). A fair sign is added.

Guarantees:
  No floating point. Every comparison is of a uniform real number, of which the first
  bits are known, with a real number that lies between two known integers. Where these
  bits decide (nearly always) the answer is final; where they do not, more bits are
  drawn and the integers computed again at a higher precision, without end. So the
  distribution is exact if the words are uniform and independent; nothing is truncated,
  the tail beyond the table included.

Source: Canonne, Kamath and Steinke (2020), The discrete Gaussian for differential
privacy, https://arxiv.org/abs/2004.00010 (exact sampling by rejection); Karney (2016),
Sampling exactly from the normal distribution (digits drawn when they are needed).
"""

from bisect import bisect_left
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedtrain.core.keystream import Words, WordSource
from fedtrain.privacy.exponential import exp_bounds

Integers = npt.NDArray[np.int64]
# What one pass works on stays in the processor's cache.
_PASS = 1 << 14
_WORD = 64


class Staircase(NamedTuple):
    """What is computed ahead of the draws.

    Attributes:
      ratio: c, the squared width of a step over the variance.
      bits: A step has 2^bits whole places; a place is drawn with that many bits.
      is_continuous: Whether a place has further bits, which are drawn when needed.
      edges: floor(2^64 P(step <= j)) for each step j, uint64.
      sure: At each step, what the remaining bits must be below to accept any place.
    """

    ratio: Fraction
    bits: int
    is_continuous: bool
    edges: Words
    sure: Words


@lru_cache(maxsize=16)
def staircase(ratio: Fraction, bits: int, *, is_continuous: bool) -> Staircase:
    """The staircase with ``c = ratio`` and 2^bits whole places in a step."""
    edges = _edges(ratio, _WORD)
    furthest = (1 << bits) - (not is_continuous)
    sure = [
        exp_bounds(*_exponent(ratio, j, furthest, bits), 63 - bits)[0]
        for j in range(len(edges))
    ]
    return Staircase(
        ratio=ratio,
        bits=bits,
        is_continuous=is_continuous,
        edges=np.array(edges, np.uint64),
        sure=np.array(sure, np.uint64),
    )


def draws(stairs: Staircase, num: int, source: WordSource) -> Integers:
    """``num`` independent whole places, int64: signed, in units of 2^-bits steps.

    Of a continuous shape it is the floor: a place -U lies in the cell -1, not 0.
    """
    parts: list[Integers] = []
    missing = num
    while missing > 0:
        proposals = min(missing + missing // 16 + 8, _PASS)
        part = _accepted(stairs, source.words(2 * proposals), source)[:missing]
        parts.append(part)
        missing -= len(part)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _accepted(stairs: Staircase, words: Words, source: WordSource) -> Integers:
    """What is kept of len(words) / 2 proposals."""
    first, second = words[: len(words) // 2], words[len(words) // 2 :]
    steps = np.searchsorted(stairs.edges, first)
    negative, places, rest = _split(second, stairs.bits)
    kept = rest < stairs.sure[steps]
    unsure = stairs.edges[steps] == first
    for i in np.flatnonzero(~kept | unsure):
        if unsure[i]:
            steps[i] = _exact_step(stairs, int(first[i]), source)
        kept[i] = _is_kept(stairs, int(steps[i]), int(places[i]), int(rest[i]), source)
    values = (steps.astype(np.int64) << stairs.bits) + places.astype(np.int64)
    if stairs.is_continuous:
        return np.where(negative, ~values, values)[kept]
    # Zero has two signs, of which one is refused.
    return np.where(negative, -values, values)[kept & ~(negative & (values == 0))]


def _split(words: Words, bits: int) -> tuple[npt.NDArray[np.bool_], Words, Words]:
    """A sign, a place of ``bits`` bits and what is left: 63 - bits bits."""
    left = np.uint64(63 - bits)
    negative = words >> np.uint64(63) == np.uint64(1)
    places = (words >> left) & np.uint64((1 << bits) - 1)
    rest = words & np.uint64((1 << (63 - bits)) - 1)
    return negative, places, rest


def _is_kept(
    stairs: Staircase, step: int, place: int, rest: int, source: WordSource
) -> bool:
    """Whether a uniform real number is below the chance to keep ``place``.

    Args:
      stairs: Of which the place is.
      step: The step.
      place: The first ``stairs.bits`` bits of the place within it; all, if discrete.
      rest: The first 63 - bits bits of the uniform number.
      source: Of further bits, for both.
    """
    place_bits, rest_bits = stairs.bits, 63 - stairs.bits
    while True:
        near = _exponent(stairs.ratio, step, place, place_bits)
        far = near
        if stairs.is_continuous:
            far = _exponent(stairs.ratio, step, place + 1, place_bits)
        if rest + 1 <= exp_bounds(*far, rest_bits)[0]:
            return True
        if rest >= exp_bounds(*near, rest_bits)[1]:
            return False
        rest, rest_bits = _longer(rest, source), rest_bits + _WORD
        if stairs.is_continuous:
            place, place_bits = _longer(place, source), place_bits + _WORD


def _exact_step(stairs: Staircase, known: int, source: WordSource) -> int:
    """The step at a uniform real number of which 64 bits are known, and not enough."""
    bits = _WORD
    while True:
        known, bits = _longer(known, source), bits + _WORD
        edges = _edges(stairs.ratio, bits)
        step = bisect_left(edges, known)
        if edges[step] != known:
            return step


def _longer(known: int, source: WordSource) -> int:
    return known << _WORD | int(source.words(1)[0])


def _exponent(ratio: Fraction, step: int, place: int, bits: int) -> tuple[int, int]:
    """The exponent c (2 j U + U²) / 2 as a fraction, for U = place / 2^bits."""
    numerator = ratio.numerator * place * ((step << bits + 1) + place)
    return numerator, ratio.denominator << 2 * bits + 1


def _edges(ratio: Fraction, bits: int) -> list[int]:
    """floor(2^bits P(step <= j)), until it is 2^bits - 1; at any precision."""
    point = 2 * bits
    while True:
        low, high = _edge_bounds(ratio, bits, point)
        if low == high:
            return low[: low.index((1 << bits) - 1) + 1]
        point += _WORD


def _edge_bounds(ratio: Fraction, bits: int, point: int) -> tuple[list[int], list[int]]:
    """The edges from below and from above, from weights of ``point`` bits."""
    low, high, step = [0], [0], 0
    while high[-1] - (high[-2] if step else -2) > 1:
        weight = exp_bounds(ratio.numerator * step**2, 2 * ratio.denominator, point)
        low.append(low[-1] + weight[0])
        high.append(high[-1] + weight[1])
        step += 1
    total = high[-1] + _tail_over_last(ratio, step - 1)
    most = (1 << bits) - 1
    return (
        [(edge << bits) // total for edge in low[1:]],
        [min((edge << bits) // low[-1], most) for edge in high[1:]],
    )


def _tail_over_last(ratio: Fraction, last: int) -> int:
    """A bound on the weights beyond ``last``, whose own is at most 2^-point.

    They decrease at least as a geometric series of ratio exp(-x), x = c last / 2, and
    1 / (1 - exp(-x)) is at most 2 + 2 / x.
    """
    return 3 + 4 * ratio.denominator // (ratio.numerator * max(last, 1))
