"""Bounds on exp(-x) for rational x, in whole numbers only.

Source: Taylor's series of exp with the number halved first, by interval arithmetic; the
same is done with Bernoulli draws by Canonne, Kamath and Steinke (2020), Algorithm 1.
"""


def exp_bounds(numerator: int, denominator: int, bits: int) -> tuple[int, int]:
    """Whole numbers around ``2^bits exp(-numerator / denominator)``.

    Args:
      numerator: At least 0.
      denominator: Above 0.
      bits: Of precision.

    Returns:
      ``low`` and ``high`` with low <= 2^bits exp(-x) <= high; equal where x is 0, and
      otherwise hardly ever more than 1 apart.
    """
    if numerator == 0:
        return 1 << bits, 1 << bits
    halvings = (numerator // denominator).bit_length() + 6
    point = bits + halvings + 16
    x = (numerator << point) // (denominator << halvings)
    total, slack = _exp(x, point)
    one = 1 << 2 * point
    low, high = one // (total + slack), one // total + 1
    for _ in range(halvings):
        low, high = low * low >> point, (high * high >> point) + 1
    drop = point - bits
    return low >> drop, min(-(-high >> drop), 1 << bits)


def _exp(x: int, point: int) -> tuple[int, int]:
    """2^point exp(x') from below, and by how much at most, for x <= 2^point x' < x + 1.

    x' is below 2^-6. Each term is rounded down by less than 2 (its own division, and
    the one before); the unknown end of x' adds less than 3, later terms less than 1.
    """
    total = term = 1 << point
    num_terms = 1
    while term:
        term = (term * x >> point) // num_terms
        total += term
        num_terms += 1
    return total, 2 * num_terms + 6
