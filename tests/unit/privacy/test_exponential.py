from decimal import Decimal, localcontext

import pytest

from fedtrain.privacy.exponential import exp_bounds

FRACTIONS = [(1, 10**9), (1, 3), (1, 1), (17, 5), (40, 1), (12345, 67), (10**7, 1)]


@pytest.mark.parametrize("bits", [1, 19, 41, 64, 128, 300])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_true_value_lies_between_the_bounds(fraction, bits):
    low, high = exp_bounds(*fraction, bits)
    with localcontext() as context:
        context.prec = 200
        exact = (-Decimal(fraction[0]) / Decimal(fraction[1])).exp() * 2**bits
    assert low <= exact <= high
    assert high - low <= 1


def test_the_value_at_zero_is_known_exactly():
    assert exp_bounds(0, 5, 63) == (2**63, 2**63)
