"""One federation for the tests of the client: an authority, a plan, an invited bank."""

import numpy as np
import pytest
from fake_aggregator import FakeAggregator
from light_work import Bank

from aggregator.authority import Terms, init
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.plan import Plan, PlanPrivacy

WEIGHTS = (ArraySpec((3, 2), "float32"), ArraySpec((2,), "float32"))


@pytest.fixture(scope="session")
def plan():
    return Plan(
        name="credit",
        operator="Example Credit Bureau",
        software="fedtrain 0.1.0",
        task={"sections": {"rounds": {"num_rounds": 5}}, "schema": {}},
        broadcast=WEIGHTS,
        contribution=WEIGHTS,
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
            mechanism={"name": "gaussian"},
            accountant="PLD",
        ),
        leaves=("The noised update of the model's weights.",),
    )


@pytest.fixture
def authority(tmp_path):
    return init(tmp_path / "operator", name="credit", hosts=["localhost"])


@pytest.fixture
def aggregator(authority, plan):
    weights = np.arange(8, dtype=np.float32).tobytes()
    fake = FakeAggregator(authority, plan, broadcast=weights).start()
    yield fake
    fake.stop()


@pytest.fixture
def bank(tmp_path, authority, aggregator, plan):
    """bank-a: admitted, and its policy approves the plan."""
    terms = Terms(plan, f"127.0.0.1:{aggregator.port}", "localhost")
    return Bank.admitted(tmp_path / "bank-a", authority, terms)
