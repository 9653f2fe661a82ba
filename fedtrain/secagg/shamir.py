"""Secrets split so that ``threshold`` shares give them back, and fewer say nothing.

A secret is the value at 0 of a random polynomial of degree ``threshold - 1`` over a
prime field; share i is its value at i. For the 32 bytes of a seed or key the field is
the integers modulo the least prime above 2^256.

Source: Shamir (1979), How to share a secret.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, *, points: Sequence[int], threshold: int) -> dict[int, bytes]:
    """Shares of a secret of 32 bytes, by the point they belong to, 33 bytes each.

    Args:
      secret: 32 bytes.
      points: Distinct numbers of at least 1, one for each holder.
      threshold: How many shares give the secret back.

    Guarantees:
      Whatever ``threshold - 1`` shares are, every secret is equally likely by them.
    """
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    values = ((point, value_at(point, coefficients, PRIME)) for point in points)
    return {point: value.to_bytes(SHARE_BYTES, "big") for point, value in values}


def join(shares: Mapping[int, bytes], *, threshold: int) -> bytes | None:
    """The secret that ``threshold`` of the shares give; None if they give none.

    Args:
      shares: Shares by their point; of more than needed the first are taken.
      threshold: What they were split with.
    """
    if len(shares) < threshold:
        return None
    chosen = {
        point: int.from_bytes(share, "big")
        for point, share in islice(shares.items(), threshold)
    }
    secret = value_at_zero(chosen, PRIME)
    return None if secret >> 8 * SECRET_BYTES else secret.to_bytes(SECRET_BYTES, "big")


def value_at(point: int, coefficients: Sequence[int], prime: int) -> int:
    """The polynomial's value at ``point``; ``coefficients`` from the constant up."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % prime
    return value


def value_at_zero(values: Mapping[int, int], prime: int) -> int:
    """The value at 0 of the polynomial through ``values`` (Lagrange's formula)."""
    weights = (_weight(point, values, prime) for point in values)
    terms = zip(values.values(), weights, strict=True)
    return sum(value * weight for value, weight in terms) % prime


def _weight(point: int, points: Iterable[int], prime: int) -> int:
    numerator = denominator = 1
    for other in points:
        if other != point:
            numerator = numerator * other % prime
            denominator = denominator * (other - point) % prime
    return numerator * pow(denominator, -1, prime) % prime
