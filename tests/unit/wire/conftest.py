"""One federation for the tests of the wire: an authority, a plan, a partner."""

from pathlib import Path
from typing import NamedTuple

import pytest

from aggregator.authority import Authority, Terms, init
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.enrolment import EnrolmentRequest, Invitation
from fedtrain.wire.identity import new_keys
from fedtrain.wire.plan import Plan, PlanPrivacy


class Federation(NamedTuple):
    """An authority, and bank-a with its home, request and invitation."""

    authority: Authority
    terms: Terms
    home: Path
    request: EnrolmentRequest
    invitation: Invitation


@pytest.fixture(scope="session")
def plan() -> Plan:
    weights = (ArraySpec((3, 2), "float32"), ArraySpec((2,), "float32"))
    return Plan(
        name="credit",
        operator="Example Credit Bureau",
        software="fedtrain 0.1.0",
        task={
            "sections": {
                "model": {"name": "dense_classifier", "hidden": [8]},
                "rounds": {"algorithm": "fed_avg", "num_rounds": 5},
                "client": {"optimizer": "sgd", "learning_rate": 0.1},
            },
            "schema": {"features": [{"name": "age"}], "label": {"name": "default"}},
        },
        broadcast=weights,
        contribution=weights,
        num_rounds=5,
        report_goal=3,
        least_reports=2,
        deadline_s=60.0,
        privacy=PlanPrivacy(
            unit="example",
            trust="local",
            neighboring_relation="add_or_remove_one",
            delta=1e-5,
            epsilon=2.0,
            mechanism={"name": "gaussian", "noise_multiplier": 1.1},
            accountant="PLD of dp-accounting 0.6.0",
        ),
        leaves=("The noised update of the model's weights.",),
    )


@pytest.fixture(scope="session")
def terms(plan: Plan) -> Terms:
    return Terms(plan, "aggregator.example:8470", "localhost")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return init(tmp_path / "operator", name="credit", hosts=["localhost", "127.0.0.1"])


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory, terms: Terms) -> Federation:
    folder = tmp_path_factory.mktemp("federation")
    authority = init(folder / "operator", name="credit", hosts=["localhost"])
    home = folder / "bank-a"
    request = EnrolmentRequest.of("bank-a", new_keys(home))
    return Federation(authority, terms, home, request, authority.admit(request, terms))
