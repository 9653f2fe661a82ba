import pytest

from clients.answered_sessions import AnsweredSessions
from fedtrain.secagg.answered import check_unanswered
from fedtrain.secagg.blame import BreachError

PLAN = bytes(32)


@pytest.mark.parametrize(
    ("session", "is_refused"),
    [((3, 0), True), ((3, 1), True), ((3, 2), False), ((2, 9), True), ((4, 0), False)],
)
def test_an_answered_session_and_those_before_it_are_refused(
    tmp_path, session, is_refused
):
    assert AnsweredSessions(tmp_path, 1).last(PLAN) == -1
    AnsweredSessions(tmp_path, 1).claim(PLAN, 3)
    round_number, attempt = session
    again = AnsweredSessions(tmp_path, attempt)
    for claim in (check_unanswered, AnsweredSessions.claim):
        given = (again, PLAN, round_number)
        if is_refused:
            with pytest.raises(BreachError, match="is answered already"):
                claim(*given)
        else:
            claim(*given)


def test_an_attempt_that_no_honest_aggregator_makes_is_refused(tmp_path):
    with pytest.raises(BreachError, match="attempt"):
        AnsweredSessions(tmp_path, 2**20)
