"""Philox4x32-10 for many keys in one go, in plain numpy.

numpy's own generator takes one key at a time, which costs more than the few numbers
that a small client needs. Here the keys and counters of a thousand clients are arrays.

Source: Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3.
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_FACTORS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_ROUNDS = 10
# What one pass works on stays in the processor's cache.
_PASS = 1 << 15


def philox(counters: Words, keys: Words) -> Words:
    """Random words uint32 [n, 4] from counters uint32 [n] and keys uint32 [n, 2].

    ``counters`` is the lowest of Philox's four counter words; the others are 0.
    """
    result = np.empty([len(counters), 4], np.uint32)
    for start in range(0, len(counters), _PASS):
        part = slice(start, start + _PASS)
        result[part] = _blocks(counters[part], keys[part])
    return result


def _blocks(counters: Words, keys: Words) -> Words:
    zeros = np.zeros_like(counters)
    words = [counters, zeros, zeros, zeros]
    own_keys = [keys[:, 0].copy(), keys[:, 1].copy()]
    for round_ in range(_ROUNDS):
        if round_:
            for key, step in zip(own_keys, _STEPS, strict=True):
                key += step
        low_0, high_0 = _product(words[0], _FACTORS[0])
        low_1, high_1 = _product(words[2], _FACTORS[1])
        words = [
            high_1 ^ words[1] ^ own_keys[0],
            low_1,
            high_0 ^ words[3] ^ own_keys[1],
            low_0,
        ]
    return np.stack(words, axis=1)


def _product(words: Words, factor: np.uint64) -> tuple[Words, Words]:
    """The low and the high half of each 64-bit product."""
    product = np.multiply(words, factor, dtype="<u8")
    halves = product.view("<u4").reshape([-1, 2])
    return halves[:, 0], halves[:, 1]
