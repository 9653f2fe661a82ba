import pytest
from secure_banks import NAMES, secure_plan

from aggregator.authority import Terms
from clients.checking import _keys_of_all
from clients.home import Home
from clients.pins import check_names_all, keys_of_partners, pin, pinned, raw_keys
from fedtrain.core.errors import ConfigError, PolicyError
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys


@pytest.fixture
def invited(tmp_path, authority):
    """Invitations of bank-a, after each of the five partners was admitted."""
    terms = Terms(secure_plan(), "localhost:1", "localhost")
    found = []
    for name in NAMES:
        keys = new_keys(tmp_path / name)
        authority.admit(EnrolmentRequest.of(name, keys), terms)
        found.append(authority.invitation("bank-a", terms))
    return found


def test_keys_are_pinned_and_added_to(invited, tmp_path):
    path = tmp_path / "partners.toml"
    assert pinned(path) == {}
    pin(path, invited[1])
    assert set(pinned(path)) == {"bank-a", "bank-b"}
    pin(path, invited[4])
    assert pinned(path) == invited[4].roster
    assert {len(key) for key in raw_keys(pinned(path)).values()} == {32}
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_key_under_a_known_name_is_refused(invited, tmp_path):
    path = tmp_path / "partners.toml"
    pin(path, invited[4])
    before = path.read_bytes()
    keys = {**invited[4].roster, "bank-b": invited[4].roster["bank-c"]}
    with pytest.raises(PolicyError, match="bank-b has the key"):
        pin(path, invited[4].model_copy(update={"roster": keys}))
    assert path.read_bytes() == before


def test_others_than_the_partners_of_the_plan_are_not_pinned(invited, tmp_path):
    path = tmp_path / "partners.toml"
    keys = {**invited[4].roster, "bank-z": invited[4].roster["bank-c"]}
    pin(path, invited[4].model_copy(update={"roster": keys}))
    assert set(pinned(path)) == set(NAMES)
    others = {**keys, "bank-y": keys["bank-z"]}
    found = keys_of_partners(others, plan=secure_plan(), client_id="bank-a")
    assert set(found) == set(NAMES)


def test_a_check_counts_the_partners_of_the_plan_and_nobody_else(invited, tmp_path):
    home = Home(tmp_path, "bank-a")
    stranger = {"bank-z": invited[4].roster["bank-c"]}
    others = invited[4].model_copy(update={"roster": invited[4].roster | stranger})

    def found():
        (row,) = _keys_of_all(others, home)
        return row["found"]

    assert found() == f"not pinned: {', '.join(NAMES)}"
    pin(home.pins_path, invited[1])
    assert found() == "not pinned: bank-c, bank-d, bank-e"
    pin(home.pins_path, others)
    assert found() == "pinned, of 5 partners"
    # A stranger in the place of a partner does not make the invitation whole.
    short = {n: k for n, k in others.roster.items() if n != "bank-c"}
    with pytest.raises(PolicyError, match="no key of bank-c"):
        _keys_of_all(others.model_copy(update={"roster": short}), home)


def test_an_invitation_from_before_all_were_admitted_is_no_use(invited):
    check_names_all(invited[4])
    with pytest.raises(PolicyError, match="no key of bank-d, bank-e"):
        check_names_all(invited[2])


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "partners.toml"
    path.write_text("not = [toml")
    with pytest.raises(ConfigError, match="not TOML"):
        pinned(path)
