import math

import pytest

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1", None, True])
def test_positive_refuses_by_name_and_value(value):
    with pytest.raises(ConfigError, match="clipping_norm") as caught:
        validate.positive(clipping_norm=value)
    assert repr(value) in str(caught.value)


def test_one_of_lists_what_is_allowed():
    with pytest.raises(ConfigError, match="'a', 'b'; got 'c'"):
        validate.one_of({"a", "b"}, unit="c")


@pytest.mark.parametrize("value", [0, 1.5, True, "3"])
def test_positive_integer_refuses(value):
    with pytest.raises(ConfigError, match="num_rounds"):
        validate.positive_integer(num_rounds=value)
