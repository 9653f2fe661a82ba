import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.policy import Facts, Policy, policy_for, read_policy, write_policy
from fedtrain.core.errors import ConfigError, PolicyError

BROADEST = {
    "max_epsilon": math.inf,
    "max_delta": 0.5,
    "allowed_units": ["example", "entity", "client"],
    "allowed_trust": ["local", "distributed", "central"],
    "min_cohort": 1,
    "min_rows": 1,
    "require_secure_aggregation": False,
    "exact_metrics_may_leave": True,
}
NARROWER = {
    "max_epsilon": 1.99,
    "max_delta": 1e-6,
    "allowed_units": ["entity"],
    "allowed_trust": ["distributed"],
    "min_cohort": 3,
    "min_rows": 11,
    "require_secure_aggregation": True,
    "exact_metrics_may_leave": False,
}
FACTS = Facts(num_examples=10)


@pytest.fixture(scope="module")
def asking(plan):
    """A plan that meets every clause: it evaluates too."""
    return plan.model_copy(update={"evaluation": plan.contribution})


@given(broad=st.sets(st.sampled_from(sorted(BROADEST))))
@settings(max_examples=100, deadline=None)
def test_each_narrow_clause_forbids_and_is_named(asking, broad):
    chosen = {k: (BROADEST if k in broad else NARROWER)[k] for k in BROADEST}
    found = Policy(**chosen).violations(asking, FACTS)
    narrow = [name for name in BROADEST if name not in broad]
    assert len(found) == len(narrow)
    assert all(any(name in clause for clause in found) for name in narrow)


@pytest.mark.parametrize("seed", [None, 0])
def test_no_privacy_needs_an_unbounded_epsilon(plan, seed):
    changes = {"simulation_seed": seed} if seed is not None else {"privacy": None}
    bare = plan.model_copy(update=changes)
    bounded = Policy(**BROADEST | {"max_epsilon": 1e9})
    (clause,) = bounded.violations(bare, FACTS)
    assert "max_epsilon" in clause
    assert not Policy(**BROADEST).violations(bare, FACTS)


def test_secure_aggregation_is_refused_with_keys_of_the_operator(plan):
    secure = plan.model_copy(update={"secure_aggregation": True})
    facts = Facts(num_examples=10, is_demo=True)
    assert "demo" in Policy(**BROADEST).violations(secure, facts)[0]


def test_a_first_policy_allows_its_plan_and_nothing_exact(plan):
    policy = policy_for(plan)
    assert not policy.violations(plan, FACTS)
    assert not policy.approves(plan)
    assert policy.approving(plan).approving(plan).approved_plans == [plan.sha256]
    exact = plan.privacy.model_copy(update={"trust": "central"})
    central = plan.model_copy(update={"privacy": exact})
    with pytest.raises(PolicyError, match="allowed_trust"):
        policy_for(central).check(central, FACTS)
    policy_for(central, allow_central=True).check(central, FACTS)
    bare = plan.model_copy(update={"privacy": None})
    with pytest.raises(PolicyError, match="max_epsilon = inf"):
        policy_for(bare).check(bare, FACTS)
    policy_for(bare, max_epsilon=math.inf).check(bare, FACTS)


@given(st.sampled_from([math.inf, 1.0, 1e-300, 12345.678]), st.booleans())
@settings(max_examples=8, deadline=None)
def test_the_file_reads_back(tmp_path_factory, plan, max_epsilon, approved):
    path = tmp_path_factory.mktemp("home") / "policy.toml"
    policy = Policy(**BROADEST | {"max_epsilon": max_epsilon})
    policy = policy.approving(plan) if approved else policy
    write_policy(path, policy)
    assert read_policy(path) == policy
    assert path.read_text().count("#") == len(BROADEST) + 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("min_rows = 1", "min_rows = 0"), "min_rows"),
        (("min_rows = 1", "min_rows = 1.0"), "min_rows"),
        (("min_rows = 1", ""), "min_rows"),
        (("min_rows", "least_rows"), "least_rows"),
        (("max_epsilon = inf", "max_epsilon = nan"), "max_epsilon"),
        (("max_epsilon = inf", "max_epsilon ="), "not TOML"),
    ],
)
def test_a_key_that_is_wrong_is_named(tmp_path, change, message):
    path = tmp_path / "policy.toml"
    write_policy(path, Policy(**BROADEST))
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=message):
        read_policy(path)


def test_there_is_no_policy_before_the_first_approval(tmp_path):
    assert read_policy(tmp_path / "policy.toml") is None
