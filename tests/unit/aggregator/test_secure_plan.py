"""What a project with secure aggregation asks its partners to approve."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from aggregator import cli
from aggregator.secure_terms import check_all_admitted, secure_terms
from clients.promise import check_promise
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.project.deployed import deployed
from fedtrain.project.problems import ProjectError
from fedtrain.project.read import checked_config
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.plan_words import in_words
from tests.unit.aggregator.small_project import PRIVACY, SCHEMA, plan_of, small_project

CLIENTS = [f"bank-{letter}" for letter in "abcde"]
TABLES = {
    "name": "small",
    "seed": 3,
    "data": {"path": "rows", "schema_path": "schema.json"},
    "model": {"name": "dense_classifier"},
    "rounds": {"num_rounds": 3, "algorithm": "fed_sgd", "secure_aggregation": True},
    "client": {"sampling_rate": 0.5, "expected_batch_size": 4.0},
    "privacy": PRIVACY | {"trust": "distributed"},
    "service": {"clients": CLIENTS, "rows_per_client": 8},
}


def config_of(**changes):
    tables = {name: {**TABLES[name], **given} for name, given in changes.items()}
    return checked_config(TABLES | tables, file="test")


def project_of(folder, **changes):
    return deployed(config_of(**changes), folder=folder, schema=SCHEMA)


@pytest.fixture
def project(tmp_path):
    return project_of(tmp_path)


def test_the_plan_is_of_one_masked_vector_and_the_threshold(project):
    plan = plan_of(project)
    num_weights = sum(s.size for s in plan.broadcast if s.dtype == "float32")
    assert plan.secure_aggregation
    assert plan.contribution == (ArraySpec((num_weights,), "uint32"),)
    assert (plan.least_reports, plan.report_goal) == (4, 5)
    words = " ".join(in_words(plan).split())
    assert "sees only the sum over the partners" in words
    assert "4 of 5 partners open the sum" in words
    check_promise(plan, project)


IN_REGIONS = {
    "rounds": {"num_regions": 3},
    "service": {"clients": [f"bank-{letter}" for letter in "abcdefghij"]},
}


def test_a_plan_with_regions_says_who_sees_which_sum(tmp_path):
    project = project_of(tmp_path, **IN_REGIONS)
    plan = plan_of(project)
    # The lowest threshold of a region, and the size of the largest.
    assert (plan.least_reports, plan.report_goal) == (3, 4)
    words = " ".join(in_words(plan).split())
    assert "sees only the sum over your region's partners" in words
    assert "test, above the regions, sees only the sum of all" in words
    assert "in each of 3 regions at least 3 partners open their sum" in words
    assert plan.privacy.mechanism["details"]["num_honest"] == 2
    check_promise(plan, project)
    top = secure_terms(project.config, Register({}), plan_sha256="00" * 32)
    assert top.regions == ("region-00", "region-01", "region-02")
    below = secure_terms(
        project.config, Register({}), plan_sha256="00" * 32, region="region-00"
    )
    assert (below.regions, below.parameters.num_clients) == ((), 4)
    goal = {**IN_REGIONS["service"], "report_goal": 4}
    with pytest.raises(ConfigError, match="each region asks all"):
        project_of(tmp_path, rounds=IN_REGIONS["rounds"], service=goal)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"secure_aggregation": False}, "no secure aggregation"),
        ({"least_reports": 3}, "least_reports = 3"),
    ],
)
def test_a_plan_that_says_otherwise_is_not_carried_out(project, changes, difference):
    plan = plan_of(project).model_copy(update=changes)
    with pytest.raises(PrivacyError, match=difference):
        check_promise(plan, project)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evaluation": {"held_out_fraction": 0.5}}, "by itself"),
        ({"service": {"least_reports": 3}}, "at least 4"),
        ({"service": {"report_goal": 3}}, "report_goal = 3"),
        ({"service": {"clients": CLIENTS[:2]}}, "at least 3"),
        ({"rounds": {"threshold": 3}}, "from 4 to 5"),
    ],
)
def test_what_shows_more_than_the_sum_or_has_no_session_is_refused(
    tmp_path, changes, reason
):
    tables = dict(TABLES)
    for name, given in changes.items():
        tables[name] = {**TABLES.get(name, {}), **given}
    with pytest.raises((ConfigError, ProjectError), match=reason):
        deployed(checked_config(tables, file="test"), folder=tmp_path, schema=SCHEMA)


class Register:
    """Partners that are admitted."""

    def __init__(self, keys):
        self._keys = keys

    def roster(self):
        return self._keys

    def operator_key(self):
        return None


def test_a_run_does_not_begin_before_all_keys_are_known(project):
    with pytest.raises(ConfigError, match="bank-d, bank-e not admitted yet"):
        check_all_admitted(project.config, Register(dict.fromkeys(CLIENTS[:3], "")))
    check_all_admitted(project.config, Register(dict.fromkeys(CLIENTS, "")))


def test_an_admitted_partner_waits_for_the_keys_of_all():
    def told(admitted, *, is_secure=True):
        federation = SimpleNamespace(
            plan=lambda: SimpleNamespace(secure_aggregation=is_secure),
            partners=lambda: CLIENTS,
            authority=lambda: Register(dict.fromkeys(admitted, "")),
        )
        return cli._next_of(federation, Path("bank-a.invitation"))

    assert "once bank-d, bank-e are in, too" in told(CLIENTS[:3])
    assert "now, as all are in" in told(CLIENTS)
    assert "partners invite bank-a bank-b bank-c bank-d bank-e`" in told(CLIENTS)
    assert "Send it bank-a.invitation" in told(CLIENTS[:1], is_secure=False)


def test_a_plain_run_has_no_terms_of_secure_aggregation(tmp_path):
    plain = small_project(tmp_path).config
    assert secure_terms(plain, Register({}), plan_sha256="00" * 32) is None
