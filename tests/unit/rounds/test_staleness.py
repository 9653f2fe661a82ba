import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.rounds.staleness import (
    checked_discount,
    hinge_discount,
    no_discount,
    polynomial_discount,
)


@pytest.mark.parametrize(
    ("discount", "expected"),
    [
        (polynomial_discount(), [1.0, 2**-0.5, 3**-0.5, 0.5]),
        (hinge_discount(grace=1, slope=2.0), [1.0, 1.0, 1 / 3, 1 / 5]),
        (no_discount(), [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_discounts_are_those_of_their_papers(discount, expected):
    assert [discount(late) for late in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_a_factor_outside_the_unit_interval_is_refused(factor):
    with pytest.raises(ConfigError, match="staleness 3"):
        checked_discount(lambda late: factor, 3)
