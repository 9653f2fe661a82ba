import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.secagg.parameters import Parameters, least_threshold, parameters_for

GOOD = {
    "num_clients": 10,
    "threshold": 7,
    "num_colluding": 2,
    "num_honest_survivors": 5,
}


def test_ten_clients_of_which_two_collude_tolerate_three_losses():
    assert Parameters(**GOOD).num_tolerated_losses == 3
    assert parameters_for(10, num_colluding=2) == Parameters(**GOOD)


def test_three_clients_tolerate_no_loss():
    parameters = parameters_for(3, num_colluding=1)
    assert (parameters.threshold, parameters.num_tolerated_losses) == (3, 0)
    assert parameters.num_honest_survivors == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_clients", 2),
        ("num_clients", 51),
        ("num_clients", 10.0),
        ("threshold", 6),
        ("threshold", 11),
        ("threshold", True),
        ("num_colluding", -1),
        ("num_colluding", 4),
        ("num_colluding", None),
        ("num_honest_survivors", 6),
        ("num_honest_survivors", 0),
    ],
)
def test_parameters_that_break_a_promise_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match="must be"):
        Parameters(**GOOD | {name: value})


@pytest.mark.parametrize("num_clients", range(3, 51))
@pytest.mark.parametrize("num_colluding", [0, 1, 5])
def test_the_least_threshold_is_the_least(num_clients, num_colluding):
    least = least_threshold(num_clients, num_colluding)

    def keeps_promises(threshold):
        above_two_thirds = threshold >= 2 * num_clients // 3 + 1
        return above_two_thirds and 2 * threshold > num_clients + num_colluding

    assert keeps_promises(least)
    assert not keeps_promises(least - 1)


def test_too_many_colluders_leave_no_session():
    with pytest.raises(ConfigError, match="num_colluding=5"):
        parameters_for(5, num_colluding=5)


@pytest.mark.parametrize(
    ("num_clients", "match"), [(2, "at least 3"), (51, "at most 50"), (3.0, "whole")]
)
def test_sessions_of_another_size_are_refused(num_clients, match):
    with pytest.raises(ConfigError, match=f"num_clients.*{match}"):
        parameters_for(num_clients)
