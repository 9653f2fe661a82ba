import dataclasses

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.roster import Member, Roster

MEMBERS = tuple(Member(name, name.encode() * 8) for name in ("anna", "bert", "carl"))
ROSTER = Roster(
    plan_sha256=bytes(32),
    round_number=3,
    parameters=parameters_for(3),
    vector_length=5,
    members=MEMBERS,
)


def test_points_of_shares_are_places_from_one():
    assert [ROSTER.point(name) for name in ROSTER.client_ids] == [1, 2, 3]


def test_each_roster_names_a_session_of_its_own():
    assert dataclasses.replace(ROSTER, nonce=bytes(16)).session != ROSTER.session


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("members", MEMBERS[:2], "2 members are not the 3"),
        ("members", MEMBERS[::-1], "in order"),
        ("members", (MEMBERS[0], MEMBERS[0], MEMBERS[2]), "distinct"),
        ("members", (*MEMBERS[:2], Member("carl", b"")), "32 bytes"),
        ("vector_length", 0, "vector_length"),
        ("round_number", -1, "round_number"),
        ("plan_sha256", b"", "plan_sha256"),
    ],
)
def test_rosters_that_break_the_rules_are_refused(name, value, match):
    with pytest.raises(ConfigError, match=match):
        dataclasses.replace(ROSTER, **{name: value})


def test_a_retry_with_too_few_clients_left_is_refused():
    with pytest.raises(ConfigError, match="at least 3"):
        ROSTER.retried(without=["bert"])
