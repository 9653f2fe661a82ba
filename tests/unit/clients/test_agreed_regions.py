"""What each party of a plan with regions has agreed to, by the plan alone."""

from types import SimpleNamespace

import pytest
from regional_banks import NAMES, REGIONS, members_of, regional_plan
from secure_banks import SECTIONS, secure_plan

from aggregator.region import _check_deadlines
from clients.home import Home
from clients.pins import keys_of_partners
from clients.policy import policy_for
from clients.secure import SecurePart
from fedtrain.core.errors import ConfigError
from fedtrain.project.agreed_session import agreed_session, is_regional, partners_of
from fedtrain.project.read import checked_config
from fedtrain.project.secure_session import TOP, served_sessions
from fedtrain.wire.identity import new_keys


def test_a_partner_agrees_to_the_session_of_its_region():
    plan = regional_plan()
    found = {name: agreed_session(plan, name) for name in (*NAMES, *REGIONS)}
    sizes = {name: one.parameters.num_clients for name, one in found.items()}
    assert [sizes[n] for n in ("bank-a", "bank-e", "bank-j", *REGIONS)] == [
        *(4, 3, 3),
        *(3, 3, 3),
    ]
    for region in REGIONS:
        for name in members_of(region):
            assert found[name].members == members_of(region)
    # The noise is for the weakest region, whichever a partner is in.
    assert {found[name].parameters.num_honest_survivors for name in NAMES} == {2}
    assert found["region-00"].members == REGIONS
    assert [is_regional(plan, name) for name in ("bank-a", "region-00")] == [0, 1]
    assert not is_regional(secure_plan(), "region-00")


@pytest.mark.parametrize(
    ("name", "least_clients"), [("bank-a", 4), ("bank-e", 4), ("region-00", 3)]
)
def test_a_roster_is_held_to_the_session_of_the_plan(tmp_path, name, least_clients):
    plan = regional_plan()
    key = new_keys(tmp_path / name).identity_text
    part = SecurePart(Home(tmp_path / name, name), operator_key=key, means=None)
    # A regional aggregator's policy counts partners, and its session regions.
    policy = policy_for(plan).model_copy(update={"min_cohort": 4})
    found = part._approval(SimpleNamespace(plan=plan), policy)
    assert found.plan_sha256.hex() == plan.sha256
    assert (found.least_clients, found.least_threshold) == (least_clients, 3)
    assert (found.least_honest_survivors, found.least_colluding) == (2, 1)


def test_keys_of_another_region_count_for_nothing():
    keys = dict.fromkeys((*NAMES, *REGIONS), "key")
    plan = regional_plan()
    found = keys_of_partners(keys, plan=plan, client_id="bank-f")
    assert set(found) == set(members_of("region-01"))
    found = keys_of_partners(keys, plan=plan, client_id="region-02")
    assert set(found) == set(REGIONS)
    assert partners_of(secure_plan(), "bank-a") == set(SECTIONS["service"]["clients"])
    with pytest.raises(ConfigError, match="'bank-z' is in no session"):
        partners_of(plan, "bank-z")


def test_a_lowered_threshold_of_the_plan_is_another_session():
    assert agreed_session(regional_plan(), "bank-a").parameters.threshold == 3
    with pytest.raises(ConfigError, match="threshold must be from 3 to 4"):
        agreed_session(regional_plan(threshold=2), "bank-a")


def test_a_partner_that_is_called_like_a_region_is_refused():
    clients = ["region-00", *NAMES[1:]]
    tables = SECTIONS | {
        "rounds": SECTIONS["rounds"] | {"num_regions": 3},
        "service": {"clients": clients, "rows_per_client": 10},
    }
    with pytest.raises(ConfigError, match="Rename these partners"):
        served_sessions(checked_config(tables, file="test"))
    plain = served_sessions(checked_config(SECTIONS, file="test"))
    assert list(plain) == [TOP]


def test_a_region_waits_less_than_the_aggregator_above():
    service = SimpleNamespace(deadline_s=100.0, max_deadlines=2)
    # Two for keys and one for shares, and once more two and four.
    _check_deadlines(service, SimpleNamespace(deadline_s=900.0))
    with pytest.raises(ConfigError, match=r"may take 900 s.*waits 899 s"):
        _check_deadlines(service, SimpleNamespace(deadline_s=899.0))
