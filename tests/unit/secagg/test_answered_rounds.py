import pytest

from fedtrain.core.errors import LedgerError
from fedtrain.secagg.answered import AnsweredRounds, RememberedRounds
from fedtrain.secagg.blame import BreachError

PLAN, OTHER = bytes(32), bytes([1]) * 32


@pytest.fixture(params=["disk", "memory"])
def answered(request, tmp_path):
    return AnsweredRounds(tmp_path) if request.param == "disk" else RememberedRounds()


def test_a_round_is_claimed_once_and_none_before_it(answered):
    assert answered.last(PLAN) == -1
    answered.claim(PLAN, 0)
    answered.claim(PLAN, 7)
    for round_number in (0, 6, 7):
        with pytest.raises(BreachError, match="round 7 is answered already"):
            answered.claim(PLAN, round_number)
    assert answered.last(PLAN) == 7


def test_plans_do_not_share_their_rounds(answered):
    answered.claim(PLAN, 3)
    answered.claim(OTHER, 0)
    assert (answered.last(PLAN), answered.last(OTHER)) == (3, 0)


def test_a_claim_outlives_the_process(tmp_path):
    AnsweredRounds(tmp_path).claim(PLAN, 3)
    with pytest.raises(BreachError):
        AnsweredRounds(tmp_path).claim(PLAN, 3)


@pytest.mark.parametrize("content", ["", "7", "7 0123", "6 6 6", "\x00" * 66])
def test_a_damaged_record_counts_as_every_round_answered(tmp_path, content):
    AnsweredRounds(tmp_path).claim(PLAN, 7)
    (path,) = tmp_path.glob("*.answered")
    path.write_text(content)
    with pytest.raises(LedgerError, match="counts as answered"):
        AnsweredRounds(tmp_path).claim(PLAN, 8)


def test_the_folder_is_for_its_owner_alone(tmp_path):
    AnsweredRounds(tmp_path / "answered").claim(PLAN, 7)
    (path,) = (tmp_path / "answered").glob("*.answered")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
